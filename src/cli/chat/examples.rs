//! Reads and encodes the conversations of a split.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::models::{CausalModelConfig, CausalText, ChatError, ChatTemplate, LossOn};
use mtlora::train::TaskData;
use mtlora::train::chat::{
    ChatEncoder, ChatExample, ChatTask, EncodedChats, TooLongChat, encode_chats,
};

/// The chat template of a model, unless it has none and none is needed: plain texts are not rendered.
///
/// # Errors
/// When the template is missing, or not valid.
pub(crate) fn template(
    folder: &Path,
    text: &CausalText,
    examples: &[&[ChatExample]],
) -> Result<Option<ChatTemplate>, ChatError> {
    let all = examples.iter().copied().flatten();
    let is_needed = all.into_iter().any(|one| one.conversation().is_some());
    match ChatTemplate::from_folder(folder, text) {
        Err(ChatError::NoTemplate { .. }) if !is_needed => Ok(None),
        found => found.map(Some),
    }
}

/// The examples of a split, and the file that they are in.
pub(crate) struct Split {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) examples: Vec<ChatExample>,
}

impl Split {
    /// Reads a split, and prints notes about the data.
    pub(crate) fn read(data: &Path, name: &str) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            name: name.to_string(),
            file: ChatTask.file_of(data, name),
            examples: ChatTask.read_noting(data, name, &mut |text| note!("{text}"))?,
        })
    }

    /// Encodes the examples, and prints how many were cut or left out.
    pub(crate) fn encode(
        &self,
        encoder: ChatEncoder<'_>,
        max_length: usize,
        too_long: TooLongChat,
    ) -> Result<EncodedChats, Box<dyn Error>> {
        let encoded = encode_chats(encoder, &self.file, &self.examples, max_length, too_long)?;
        let whole = encoded.sequences.len() - encoded.cut;
        if encoded.cut + encoded.dropped + encoded.without_answer > 0 {
            note!(
                "{}: {whole} examples are whole, {} are cut to {max_length} tokens, {} are left out because they are longer, and \
                 {} because nothing in them is learned",
                self.name,
                encoded.cut,
                encoded.dropped,
                encoded.without_answer
            );
        }
        Ok(encoded)
    }
}

/// What conversations are encoded with.
pub(crate) fn encoder<'a>(
    text: &'a CausalText,
    template: Option<&'a ChatTemplate>,
    config: &dyn CausalModelConfig,
    loss_on: LossOn,
) -> ChatEncoder<'a> {
    ChatEncoder {
        text,
        template,
        end_of_text: config.end_of_text(),
        loss_on,
    }
}
