use std::collections::HashMap;

/// One input with everything that was written about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What the model reads: the facts on one line.
    pub input: String,
    /// What people wrote about it, in the file's order; never empty texts.
    pub references: Vec<String>,
    /// What it is about, where the data set says so: `Airport`, ...
    pub category: Option<String>,
    /// WebNLG: whether the train set has the category, for scores by seen and unseen ones.
    pub seen: Option<bool>,
}

/// Records by their input, in the order in which inputs first appear.
#[derive(Default)]
pub(crate) struct Grouped {
    records: Vec<Record>,
    at: HashMap<String, usize>,
}

impl Grouped {
    /// The record with this input, made if there is none.
    pub fn record(&mut self, input: String) -> &mut Record {
        let next = self.records.len();
        let at = *self.at.entry(input.clone()).or_insert(next);
        if at == next {
            self.records.push(Record {
                input,
                ..Record::default()
            });
        }
        &mut self.records[at]
    }

    pub fn into_records(self) -> Vec<Record> {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_are_one_record_in_the_order_of_the_first() {
        let mut grouped = Grouped::default();
        for (input, reference) in [("b", "1"), ("a", "2"), ("b", "3"), ("b", "3")] {
            let record = grouped.record(input.into());
            record.references.push(reference.into());
        }
        let records = grouped.into_records();
        let inputs: Vec<_> = records.iter().map(|record| record.input.as_str()).collect();
        assert_eq!(inputs, ["b", "a"]);
        assert_eq!(records[0].references, ["1", "3", "3"]);
        assert_eq!(records[1].references, ["2"]);
    }
}
