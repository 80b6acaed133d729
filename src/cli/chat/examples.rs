//! Reads and encodes the conversations of a split.

use std::error::Error;
use std::path::{Path, PathBuf};

use mtlora::models::{
    CausalModelConfig, CausalText, ChatError, ChatTemplate, Conversation, LossOn,
};
use mtlora::train::chat::{
    ChatEncoder, ChatExample, ChatTask, EncodedChats, TooLongChat, encode_chats,
};
use mtlora::train::{TaskData, hold_back};

use crate::cli::text::held_back::HELD_BACK;

/// The chat template of a model, unless it has none and none is needed: plain texts are not rendered.
///
/// # Errors
/// When the template is missing, or not valid.
pub(crate) fn template(
    folder: &Path,
    text: &CausalText,
    examples: &[&[ChatExample]],
) -> Result<Option<ChatTemplate>, ChatError> {
    let mut all = examples.iter().copied().flatten();
    let is_needed = all.any(|one| one.conversation().is_some());
    match ChatTemplate::from_folder(folder, text) {
        Err(ChatError::NoTemplate { .. }) if !is_needed => Ok(None),
        found => found.map(Some),
    }
}

/// Notes the parts of conversations that a template leaves out.
pub(crate) fn note_left_out(template: &ChatTemplate, examples: &[&[ChatExample]]) {
    for (part, what) in [
        (without_tools as Without, "descriptions of tools"),
        (without_calls, "calls of tools"),
    ] {
        let all = examples.iter().copied().flatten();
        if let Some(line) = first_left_out(template, all, part) {
            note!(
                "line {line}: the model's chat template leaves the {what} out, so they are neither read nor learned"
            );
        }
    }
}

/// A conversation without a part of it, if it has this part.
type Without = fn(&Conversation) -> Option<Conversation>;

fn without_tools(conversation: &Conversation) -> Option<Conversation> {
    conversation
        .tools
        .as_ref()
        .filter(|tools| !tools.is_empty())?;
    let mut without = conversation.clone();
    without.tools = None;
    Some(without)
}

fn without_calls(conversation: &Conversation) -> Option<Conversation> {
    let mut without = conversation.clone();
    let removed = without
        .messages
        .iter_mut()
        .filter_map(|message| message.remove("tool_calls"))
        .filter(|calls| calls.as_array().is_some_and(|calls| !calls.is_empty()));
    (removed.count() > 0).then_some(without)
}

/// The line of the first example that has a part, if the template makes the same text of it without the part.
fn first_left_out<'a>(
    template: &ChatTemplate,
    examples: impl Iterator<Item = &'a ChatExample>,
    without: Without,
) -> Option<usize> {
    let conversations =
        examples.filter_map(|example| Some((example.line, example.conversation()?)));
    let (line, whole, rest) = conversations
        .filter_map(|(line, whole)| Some((line, whole, without(whole)?)))
        .next()?;
    // What cannot be rendered is reported when the example is encoded.
    let is_same = template.render(whole, false).ok()? == template.render(&rest, false).ok()?;
    is_same.then_some(line)
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
        Self::read_noting(data, name, &mut |text| note!("{text}"))
    }

    /// Reads a split, and gives notes about the data to `note`.
    pub(crate) fn read_noting(
        data: &Path,
        name: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            name: name.to_string(),
            file: ChatTask.file_of(data, name),
            examples: ChatTask.read_noting(data, name, note)?,
        })
    }

    /// What is left of a split after about this share of it is held back, and what is held back.
    pub(crate) fn hold_back(self, fraction: f64) -> Result<[Self; 2], Box<dyn Error>> {
        let (rest, held_back) = hold_back(self.examples, fraction, |_| None)?;
        let part = |name: &str, examples| Self {
            name: name.to_string(),
            file: self.file.clone(),
            examples,
        };
        Ok([part(&self.name, rest), part(HELD_BACK, held_back)])
    }

    /// Reads all conversations of a file, and prints notes about them.
    pub(crate) fn read_whole(file: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            name: file.display().to_string(),
            file: file.to_path_buf(),
            examples: ChatTask.read_whole(file, &mut |text| note!("{text}"))?,
        })
    }

    /// Encodes the examples.
    pub(crate) fn encode(
        &self,
        encoder: ChatEncoder<'_>,
        max_length: usize,
        too_long: TooLongChat,
    ) -> Result<EncodedChats, Box<dyn Error>> {
        Ok(encode_chats(
            encoder,
            &self.file,
            &self.examples,
            max_length,
            too_long,
        )?)
    }

    /// Prints how many of the examples were cut to `max_length` tokens or left out, if there are such.
    pub(crate) fn note_cut(&self, encoded: &EncodedChats, max_length: usize) {
        if encoded.cut + encoded.dropped + encoded.without_answer > 0 {
            note!("{}: {}", self.name, what_is_used(encoded, max_length));
        }
    }
}

/// How many examples are used whole, and how many are cut or left out, and why.
pub(crate) fn what_is_used(encoded: &EncodedChats, max_length: usize) -> String {
    let whole = match encoded.sequences.len() - encoded.cut {
        1 => "1 example is used whole".to_string(),
        count => format!("{count} examples are used whole"),
    };
    let mut parts = vec![whole];
    match encoded.cut {
        0 => {}
        1 => parts.push(format!("1 is cut to {max_length} tokens")),
        count => parts.push(format!("{count} are cut to {max_length} tokens")),
    }
    match encoded.dropped {
        0 => {}
        1 => parts.push(format!(
            "1 is left out because it is longer than {max_length} tokens"
        )),
        count => parts.push(format!(
            "{count} are left out because they are longer than {max_length} tokens"
        )),
    }
    match (encoded.without_answer, encoded.first_without_answer) {
        (1, Some(line)) => parts.push(format!(
            "1 is left out because it has no answer to learn (line {line})"
        )),
        (count, Some(line)) => parts.push(format!(
            "{count} are left out because they have no answer to learn (the first is on line {line})"
        )),
        (_, None) => {}
    }
    parts.join(", ")
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mtlora::train::chat::{ChatSequence, read_chats};

    use super::*;

    #[test]
    fn one_is_said_of_one_example_and_all_of_many() {
        let encoded = EncodedChats {
            sequences: vec![ChatSequence::default(); 2],
            cut: 1,
            dropped: 2,
            without_answer: 1,
            first_without_answer: Some(7),
        };
        assert_eq!(
            what_is_used(&encoded, 60),
            "1 example is used whole, 1 is cut to 60 tokens, 2 are left out because they are longer than 60 tokens, 1 is left \
             out because it has no answer to learn (line 7)"
        );
    }

    #[test]
    fn what_a_template_leaves_out_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = [
            r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "tool_calls": []}], "tools": []}"#,
            r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null,
                "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}], "tools": [{"name": "f"}]}"#,
        ];
        std::fs::write(
            file.path(),
            lines.map(|line| line.replace('\n', "")).join("\n"),
        )
        .unwrap();
        let examples = read_chats(file.path()).unwrap();
        let found = |source: &str| {
            let template = ChatTemplate::new("a test", source, []).unwrap();
            let parts: [Without; 2] = [without_tools, without_calls];
            parts.map(|part| first_left_out(&template, examples.iter(), part))
        };
        let calls = "{% for m in messages %}{{ m.content or '' }}{{ m.tool_calls | tojson if m.tool_calls }}{% endfor %}";
        assert_eq!(
            found("{% for m in messages %}{{ m.content or '' }}{% endfor %}"),
            [Some(2); 2]
        );
        assert_eq!(found(calls), [Some(2), None]);
        assert_eq!(found("{{ tools | tojson if tools }}"), [None, Some(2)]);
        assert_eq!(found(&format!("{{{{ tools }}}}{calls}")), [None; 2]);
    }
}
