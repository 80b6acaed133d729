//! The names that settings with a choice may have, for JSON schemas, the command line and shell completions.

use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::LazyLock;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use mtlora::core::{AdapterMethod, BaseDtype, FinalPhase, Init};
use mtlora::models::LossOn;
use mtlora::train::chat::TooLongChat;
use mtlora::train::registry::{self, TaskEntry};
use mtlora::train::{LossNormalization, LrScheduler, MethodName, MetricName, ReportTo};
use schemars::{Schema, SchemaGenerator, json_schema};

/// A type whose values have names in settings.
pub(crate) trait Names {
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

        /// The names of all types, which live as long as the program, as clap wants them.
        static ALL: LazyLock<Vec<String>> = LazyLock::new(|| [$(<$name as Names>::names()),*].concat());
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

/// The names of all tasks.
static TASKS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let all = registry::all();
    all.iter().map(TaskEntry::name).map(String::from).collect()
});

/// The schema of one of the names.
pub(super) fn of<T: Names>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": T::names() })
}

/// Parses one of the names with the type's own error, and tells completions which names there are.
#[derive(Clone)]
pub(crate) struct OneOf<T>(PhantomData<T>);

/// The parser of a flag whose values have names.
pub(crate) fn one_of<T>() -> OneOf<T> {
    OneOf(PhantomData)
}

impl<T> TypedValueParser for OneOf<T>
where
    T: Names + FromStr + Clone + Send + Sync + 'static,
    T::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        flag: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<T, clap::Error> {
        let parser = StringValueParser::new().try_map(|name: String| name.parse::<T>());
        parser.parse_ref(command, flag, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = T::names();
        let known = ALL.iter().filter(move |one| names.contains(one));
        let mut seen: Vec<&'static str> = Vec::new();
        // Two types may share a name.
        let distinct = known.filter_map(move |one| {
            let is_new = !seen.contains(&one.as_str());
            is_new.then(|| seen.push(one))?;
            Some(PossibleValue::new(one.as_str()))
        });
        Some(Box::new(distinct))
    }
}

/// Takes any text, and tells completions which ones are known. What is not known is refused later, with a message of its own.
#[derive(Clone)]
pub(crate) struct Known(fn() -> Vec<&'static str>);

/// The parser of a flag or an argument with these known values.
pub(crate) fn known(values: fn() -> Vec<&'static str>) -> Known {
    Known(values)
}

/// The parser of a task's name.
pub(crate) fn task() -> Known {
    known(|| TASKS.iter().map(String::as_str).collect())
}

impl TypedValueParser for Known {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        flag: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, flag, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter().map(PossibleValue::new)))
    }
}
