//! `kubectl knark schema`: what programs may rely on.

use knark_specs::{
    alert::{self, receiver},
    cases, config, crd,
    foreign::Kind,
};

use crate::exit::{Exit, UsageError};

/// Print the JSON Schema of what -o json and -o yaml write, or of what policies may say
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  # The schema of one line of `kubectl knark trace -o json`
  kubectl knark schema event

  # The schema of policies, for an editor
  kubectl knark schema policy > policy.schema.json

  # Policies as objects of the cluster
  kubectl knark schema policy --crd | kubectl apply -f -

  # PodCheckpoints as objects of the cluster
  kubectl knark schema crd PodCheckpoint | kubectl apply -f -")]
pub struct Args {
    /// Whose schema
    #[arg(value_enum)]
    what: What,
    /// The kind of object, after crd
    #[arg(value_enum, ignore_case = true, required_if_eq("what", "crd"))]
    kind: Option<ObjectKind>,
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
    /// What files and programs are told of an alert, and webhooks in a list (--alert-to)
    Notice,
    /// A file of receivers of alerts (--alert-receivers)
    Receivers,
    /// A TracePolicy or a TraceList
    Policy,
    /// The user's defaults for flags: $KNARK_CONFIG, else ~/.kube/knark.yaml
    Config,
    /// The CustomResourceDefinition of a kind, as YAML
    Crd,
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

/// A kind of object that a cluster may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
enum ObjectKind {
    /// Rules over events
    TracePolicy,
    /// Texts that policies share
    TraceList,
    /// Kive's traps on files
    KivePolicy,
    /// KubeCop's bindings of its rules to pods
    RuntimeRuleAlertBinding,
    /// KubeCop's record of what a workload does
    ApplicationProfile,
    /// kube-forensics' order to capture a pod
    PodCheckpoint,
}

/// Prints the schema.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.crd && args.what != What::Policy {
        return Err(UsageError::because("--crd is for policies: `schema policy --crd`; for other kinds it is `schema crd KIND`"));
    }
    if args.kind.is_some() && args.what != What::Crd {
        return Err(UsageError::because("a kind is named after `kubectl knark schema crd` only"));
    }
    let schema = match args.what {
        What::Event => serde_json::to_string_pretty(&knark_specs::event::schema()),
        What::Alert => serde_json::to_string_pretty(&alert::schema()),
        What::Notice => serde_json::to_string_pretty(&alert::notice_schema()),
        What::Receivers => serde_json::to_string_pretty(&receiver::schema()),
        What::Policy if args.crd => return print_crds(&crd::crds()),
        What::Policy => serde_json::to_string_pretty(&knark_specs::policy::schema::schema()),
        What::Config => serde_json::to_string_pretty(&config::schema()),
        What::Crd => return print_crds(&args.kind.map(definitions).unwrap_or_default()),
        What::Cases => serde_json::to_string_pretty(&cases::schema()),
        What::KivePolicy => serde_json::to_string_pretty(&Kind::KivePolicy.schema()),
        What::RuntimeRuleAlertBinding => serde_json::to_string_pretty(&Kind::RuntimeRuleAlertBinding.schema()),
        What::ApplicationProfile => serde_json::to_string_pretty(&Kind::ApplicationProfile.schema()),
        What::PodCheckpoint => serde_json::to_string_pretty(&Kind::PodCheckpoint.schema()),
        What::KubeKnark => serde_json::to_string_pretty(&Kind::KubeKnarkFilesystem.schema()),
    };
    super::print(&(schema? + "\n"))
}

fn definitions(kind: ObjectKind) -> Vec<serde_json::Value> {
    let [policies, lists] = crd::crds();
    let foreign = match kind {
        ObjectKind::TracePolicy => return vec![policies],
        ObjectKind::TraceList => return vec![lists],
        ObjectKind::KivePolicy => Kind::KivePolicy,
        ObjectKind::RuntimeRuleAlertBinding => Kind::RuntimeRuleAlertBinding,
        ObjectKind::ApplicationProfile => Kind::ApplicationProfile,
        ObjectKind::PodCheckpoint => Kind::PodCheckpoint,
    };
    crd::foreign_crd(foreign).into_iter().collect()
}

fn print_crds(crds: &[serde_json::Value]) -> anyhow::Result<Exit> {
    let documents: Result<Vec<String>, _> = crds.iter().map(serde_yaml::to_string).collect();
    super::print(&documents?.join("---\n"))
}
