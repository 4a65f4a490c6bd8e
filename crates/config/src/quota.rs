//! How much a folder of `[files]` may hold: `quota` and `max-files`.

use toml::Spanned;
use toml::de::DeValue;

use crate::limits::Typed;
use crate::problem::{At, Problem};
use crate::units::Unit;

/// Largest values: what a counter of the system's holds.
const MAX_BYTES: u64 = 1 << 50;
const MAX_FILES: u64 = 1 << 40;

/// As typed.
#[derive(Debug, Default)]
pub(crate) struct RawQuota {
    pub bytes: Option<At<Typed>>,
    pub files: Option<At<Typed>>,
}

/// A text or a number; what it has to be is told with its range.
pub(crate) fn typed(value: &Spanned<DeValue<'_>>) -> Option<Typed> {
    match value.get_ref() {
        DeValue::String(text) => Some(Typed::Text(text.as_ref().to_owned())),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            Some(Typed::Number(i64::from_str_radix(&digits, number.radix()).ok()?))
        }
        _ => None,
    }
}

impl RawQuota {
    /// Bytes and names, each `None` for as many as there are.
    pub(crate) fn resolve(&self, write: bool, problems: &mut Vec<Problem>) -> (Option<u64>, Option<u64>) {
        for typed in self.bytes.iter().chain(&self.files).filter(|_| !write) {
            problems.push(typed.problem("the app cannot write there", "leave it out, or add write = true"));
        }
        let mut read = |typed: &Option<At<Typed>>, unit: Unit, most: u64| {
            let typed = typed.as_ref()?;
            read(typed, unit, most)
                .map_err(|problem| problems.push(problem))
                .ok()
        };
        (
            read(&self.bytes, Unit::Size, MAX_BYTES),
            read(&self.files, Unit::Count, MAX_FILES),
        )
    }
}

fn read(typed: &At<Typed>, unit: Unit, most: u64) -> Result<u64, Problem> {
    let text = match &typed.value {
        Typed::Text(text) => text.clone(),
        Typed::Number(number) => number.to_string(),
    };
    let value = unit
        .parse(&text)
        .map_err(|error| typed.problem(error.what, error.hint))?;
    match value {
        0 => Err(typed.problem(
            format!("{text} leaves no room for anything"),
            "leave out write = true to show the folder for reading",
        )),
        _ if value > most => Err(typed.problem(
            format!("{text} is more than {}", unit.show(most)),
            "leave it out for no limit",
        )),
        _ => Ok(value),
    }
}
