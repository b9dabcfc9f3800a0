//! `kubectl knark schema`: what programs may rely on.

use knark_specs::{alert, cases, foreign::Kind};

use crate::exit::{Exit, UsageError};

/// Print the JSON Schema of what -o json and -o yaml write, or of what policies may say
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # The schema of one line of `kubectl knark trace -o json`
  kubectl knark schema event

  # The schema of policies, for an editor
  kubectl knark schema policy > policy.schema.json

  # Policies as objects of the cluster
  kubectl knark schema policy --crd | kubectl apply -f -")]
pub struct Args {
    /// Whose schema
    #[arg(value_enum)]
    what: What,
    /// Print CustomResourceDefinitions for the cluster instead; of policy only
    #[arg(long)]
    crd: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// One line of -o json: an event, or the summary that comes last
    Event,
    /// One line of -o json of a trace with policies: an event and the rules that it matches
    Alert,
    /// A TracePolicy or a TraceList
    Policy,
    /// A file of cases, as `policy test` runs them
    Cases,
    /// A KivePolicy, as it is read
    KivePolicy,
    /// KubeCop's RuntimeRuleAlertBinding, as it is read
    RuntimeRuleAlertBinding,
    /// KubeCop's ApplicationProfile, as it is read
    ApplicationProfile,
    /// kube-forensics' PodCheckpoint, as it is read
    PodCheckpoint,
    /// kube-knark's specs of API calls and of commands, as they are read
    KubeKnark,
}

/// Prints the schema.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.crd {
        return print_crds(args.what);
    }
    let schema = match args.what {
        What::Event => serde_json::to_string_pretty(&knark_specs::event::schema()),
        What::Alert => serde_json::to_string_pretty(&alert::schema()),
        What::Policy => serde_json::to_string_pretty(&knark_specs::policy::schema::schema()),
        What::Cases => serde_json::to_string_pretty(&cases::schema()),
        What::KivePolicy => serde_json::to_string_pretty(&Kind::KivePolicy.schema()),
        What::RuntimeRuleAlertBinding => serde_json::to_string_pretty(&Kind::RuntimeRuleAlertBinding.schema()),
        What::ApplicationProfile => serde_json::to_string_pretty(&Kind::ApplicationProfile.schema()),
        What::PodCheckpoint => serde_json::to_string_pretty(&Kind::PodCheckpoint.schema()),
        What::KubeKnark => serde_json::to_string_pretty(&Kind::KubeKnarkFilesystem.schema()),
    };
    super::print(&(schema? + "\n"))
}

fn print_crds(what: What) -> anyhow::Result<Exit> {
    if what != What::Policy {
        return Err(UsageError::because("--crd prints what policies are in a cluster; use `kubectl knark schema policy --crd`"));
    }
    let documents: Result<Vec<String>, _> = knark_specs::crd::crds().iter().map(serde_yaml::to_string).collect();
    super::print(&documents?.join("---\n"))
}
