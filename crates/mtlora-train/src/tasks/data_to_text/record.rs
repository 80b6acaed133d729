use std::collections::HashMap;

/// An input with all of its references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The input of the model: the facts on one line.
    pub input: String,
    /// The texts that people wrote about the input, in the order of the file; none is empty.
    pub references: Vec<String>,
    /// The category of the input, such as `Airport`, if the data set has categories.
    pub category: Option<String>,
    /// Whether the category is in the train set; only WebNLG has separate scores for seen and unseen categories.
    pub seen: Option<bool>,
}

/// Records by their input, in the order in which inputs first appear.
#[derive(Default)]
pub(crate) struct Grouped {
    records: Vec<Record>,
    at: HashMap<String, usize>,
}

impl Grouped {
    /// Returns the record with this input, and adds an empty one if the input is new.
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
