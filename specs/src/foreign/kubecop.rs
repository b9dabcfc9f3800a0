//! KubeCop's kinds: bindings of its rules to pods, and profiles of what workloads do.

mod binding;
mod profile;

pub(super) use binding::convert as convert_binding;
pub use binding::{BoundRule, RuntimeRuleAlertBinding, RuntimeRuleAlertBindingSpec};
pub(super) use profile::convert as convert_profile;
pub use profile::{ApplicationProfile, ApplicationProfileSpec, ContainerProfile, ExecCalls, OpenCalls};
