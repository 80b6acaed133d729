//! What a classification head predicts.

/// What a classification head predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemType {
    /// Numbers, one for each label: mean squared error.
    Regression,
    /// One label of several: softmax and cross entropy.
    SingleLabelClassification,
    /// Any number of labels: a sigmoid and binary cross entropy for each.
    MultiLabelClassification,
}

impl ProblemType {
    pub(crate) const ALL: [Self; 3] = [
        Self::Regression,
        Self::SingleLabelClassification,
        Self::MultiLabelClassification,
    ];

    /// Its name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::SingleLabelClassification => "single_label_classification",
            Self::MultiLabelClassification => "multi_label_classification",
        }
    }
}
