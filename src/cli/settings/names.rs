//! The names that settings with a choice may have, for JSON schemas.

use mtlora::core::{AdapterMethod, BaseDtype, FinalPhase, Init};
use mtlora::models::LossOn;
use mtlora::train::chat::TooLongChat;
use mtlora::train::{LossNormalization, LrScheduler, MethodName, MetricName, ReportTo};
use schemars::{Schema, SchemaGenerator, json_schema};

/// A type whose values have names in settings.
pub(super) trait Names {
    /// The names of all values.
    fn names() -> Vec<String>;
}

macro_rules! names {
    ($($name:ty: $all:expr,)*) => {
        $(impl Names for $name {
            fn names() -> Vec<String> {
                $all.into_iter().map(|one| one.to_string()).collect()
            }
        })*
    };
}

names! {
    AdapterMethod: AdapterMethod::all(),
    BaseDtype: BaseDtype::ALL,
    FinalPhase: FinalPhase::ALL,
    Init: Init::ALL,
    LossNormalization: LossNormalization::ALL,
    LossOn: LossOn::ALL,
    LrScheduler: LrScheduler::ALL,
    MethodName: MethodName::ALL,
    MetricName: MetricName::ALL,
    ReportTo: ReportTo::ALL,
    TooLongChat: TooLongChat::ALL,
}

/// The schema of one of the names.
pub(super) fn of<T: Names>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": T::names() })
}
