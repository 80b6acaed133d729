//! The task: files of conversations in a folder.

use std::path::{Path, PathBuf};

use super::reader::{ChatExample, read_chats};
use crate::data::error::DataError;
use crate::tasks::task::{TaskData, unknown_split};

/// The part of the training file that is held back for evaluation where there is no dev file: one example of this many.
pub const HELD_BACK: usize = 10;

/// The roles that chat templates know.
const USUAL_ROLES: [&str; 6] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
];

/// The first message with another role: its line and role, and how many there are.
fn unusual_role(examples: &[ChatExample]) -> Option<(usize, &str, usize)> {
    let roles = examples.iter().flat_map(|example| {
        let messages = example.conversation().map_or(0, |one| one.messages.len());
        let role = move |index| example.conversation().and_then(|one| one.role(index));
        (0..messages).filter_map(move |index| Some((example.line, role(index)?)))
    });
    let mut unusual = roles.filter(|(_, role)| !USUAL_ROLES.contains(role));
    let (line, role) = unusual.next()?;
    Some((line, role, 1 + unusual.count()))
}

/// Notes roles of a file's examples that chat templates may not know.
fn note_unusual_roles(examples: &[ChatExample], file: &Path, note: &mut dyn FnMut(&str)) {
    if let Some((line, role, count)) = unusual_role(examples) {
        note(&format!(
            "{}:{line}: the role `{role}` is not one of {}; {count} messages in this file have such roles. The chat \
             template decides how they appear, and they are not learned as the assistant's",
            file.display(),
            USUAL_ROLES.join(", ")
        ));
    }
}

/// Conversations in a folder's `train.jsonl`, with `dev.jsonl` and `test.jsonl` if they are there, or in one JSONL file.
/// Where there is no dev file, every tenth example is held back from training and evaluated, and at least one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatTask;

impl ChatTask {
    /// The name on the command line.
    pub const NAME: &'static str = "chat";

    /// The file of a split: `data` itself if it is a file.
    pub fn file(data: &Path, split: &str) -> PathBuf {
        if data.is_file() {
            data.to_path_buf()
        } else {
            data.join(format!("{split}.jsonl"))
        }
    }

    /// The file that the examples of a split are in.
    pub fn file_of(&self, data: &Path, split: &str) -> PathBuf {
        let file = Self::file(data, split);
        if split == self.dev_split() && !file.exists() {
            Self::file(data, self.train_split())
        } else {
            file
        }
    }

    /// All examples of one file, none of which is held back, and notes about them.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is no example.
    pub fn read_whole(
        &self,
        file: &Path,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<ChatExample>, DataError> {
        let examples = read_chats(file)?;
        note_unusual_roles(&examples, file, note);
        Ok(examples)
    }

    /// Whether the dev split is a part of the training file.
    pub fn holds_back(&self, data: &Path) -> bool {
        data.is_file() || !Self::file(data, self.dev_split()).exists()
    }
}

impl TaskData for ChatTask {
    type Item = ChatExample;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn describe(&self) -> &str {
        "conversations with a chat model: JSONL with messages, prompts and completions, instructions or texts"
    }

    fn read(&self, data: &Path, split: &str) -> Result<Vec<ChatExample>, DataError> {
        if !self.splits().contains(&split) {
            return Err(unknown_split(self, split));
        }
        let path = self.file_of(data, split);
        let (is_dev, is_train) = (split == self.dev_split(), split == self.train_split());
        if data.is_file() && !(is_dev || is_train) {
            let message = format!(
                "is a single file, which is split into training and held-back conversations; for the split {split}, put its conversations \
                 into a folder as {split}.jsonl and give that folder as --data"
            );
            return Err(DataError::Format { path, message });
        }
        let examples = read_chats(&path)?;
        if !(is_dev || is_train) || !self.holds_back(data) {
            return Ok(examples);
        }
        if examples.len() < 2 {
            let message = "has only one example, which cannot both be learned and held back for evaluation: add examples, or \
                           a file dev.jsonl";
            return Err(DataError::Format {
                path,
                message: message.to_string(),
            });
        }
        let last = examples.len() - 1;
        let is_held = |index: usize| {
            index % HELD_BACK == HELD_BACK - 1 || (last < HELD_BACK && index == last)
        };
        let numbered = examples.into_iter().enumerate();
        let wanted = numbered.filter(|(index, _)| is_held(*index) == is_dev);
        Ok(wanted.map(|(_, example)| example).collect())
    }

    fn read_noting(
        &self,
        data: &Path,
        split: &str,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<ChatExample>, DataError> {
        let examples = self.read(data, split)?;
        let file = self.file_of(data, split);
        if split == self.dev_split() && self.holds_back(data) {
            note(&format!(
                "there is no dev.jsonl, so one example of {HELD_BACK} is held back from {} for evaluation: {}",
                file.display(),
                examples.len()
            ));
        }
        note_unusual_roles(&examples, &file, note);
        Ok(examples)
    }

    fn test_split(&self) -> Option<&str> {
        Some("test")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::super::reader::ChatContent;
    use super::*;

    fn lines(count: usize) -> String {
        (0..count)
            .map(|n| format!("{{\"text\": \"{n}\"}}\n"))
            .collect()
    }

    fn texts(examples: &[ChatExample]) -> Vec<String> {
        let content = |example: &ChatExample| match &example.content {
            ChatContent::Text(text) => text.clone(),
            ChatContent::Conversation(_) => panic!("a text"),
        };
        examples.iter().map(content).collect()
    }

    #[test]
    fn a_mistyped_role_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.jsonl");
        let line = |role: &str| {
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"q\"}}, {{\"role\": \"{role}\", \"content\": \"a\"}}]}}\n"
            )
        };
        let noted = |roles: [&str; 3]| {
            fs::write(&path, roles.map(line).concat()).unwrap();
            fs::write(folder.path().join("dev.jsonl"), line("assistant")).unwrap();
            let mut notes = Vec::new();
            ChatTask
                .read_noting(folder.path(), "train", &mut |text| {
                    notes.push(text.to_string())
                })
                .unwrap();
            notes
        };
        let found = noted(["assistant", "assitant", "bot"]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("train.jsonl:2: the role `assitant` is not one of system, "));
        assert!(found[0].contains("2 messages in this file have such roles"));
        assert_eq!(noted(["assistant", "tool", "system"]), [""; 0]);
    }

    #[test]
    fn without_a_dev_file_a_part_is_held_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.jsonl");
        for (count, held) in [
            (2, vec!["1"]),
            (9, vec!["8"]),
            (10, vec!["9"]),
            (25, vec!["9", "19"]),
        ] {
            fs::write(&path, lines(count)).unwrap();
            for data in [folder.path(), path.as_path()] {
                let [train, dev] =
                    ["train", "dev"].map(|split| texts(&ChatTask.read(data, split).unwrap()));
                assert_eq!(dev, held);
                assert_eq!(train.len() + dev.len(), count);
                assert!(train.iter().all(|one| !dev.contains(one)));
            }
        }
        let mut notes = Vec::new();
        ChatTask
            .read_noting(folder.path(), "dev", &mut |note| {
                notes.push(note.to_string())
            })
            .unwrap();
        assert!(notes[0].contains("held back"), "{notes:?}");
        fs::write(&path, lines(1)).unwrap();
        let error = ChatTask
            .read(folder.path(), "train")
            .unwrap_err()
            .to_string();
        assert!(error.contains("only one example"), "{error}");
        // What was trained on is not a test.
        let error = ChatTask.read(&path, "test").unwrap_err().to_string();
        assert!(error.contains("test.jsonl"), "{error}");
        fs::write(folder.path().join("dev.jsonl"), lines(3)).unwrap();
        assert_eq!(ChatTask.read(folder.path(), "train").unwrap().len(), 1);
        assert_eq!(ChatTask.read(folder.path(), "dev").unwrap().len(), 3);
        let error = ChatTask
            .read(folder.path(), "test")
            .unwrap_err()
            .to_string();
        assert!(error.contains("test.jsonl: no such file"), "{error}");
    }
}
