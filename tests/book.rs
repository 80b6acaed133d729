//! The book in `docs`: its links lead somewhere, and its commands do what the pages say. docs/reference/about.md describes the
//! words after a block's language.
#![cfg(all(feature = "flex", unix))]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use common::copy_folder;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The repository's folder.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the book, as paths from the repository's folder.
fn pages() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(repository().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.insert(path);
            }
        }
    }
    found.remove(Path::new("docs/SUMMARY.md"));
    found
}

/// What of a page these tests look at.
#[derive(Default)]
struct Page {
    /// The targets of links and pictures.
    links: Vec<String>,
    /// The headings, as links name them.
    anchors: BTreeSet<String>,
    blocks: Vec<Block>,
}

/// A block of code.
#[derive(Default)]
struct Block {
    /// What is written after the opening marks: the language, and words for these tests.
    info: String,
    text: String,
    /// The commands that are run in its place.
    instead: Option<String>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(repository().join(path)).unwrap();
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let mut block: Option<Block> = None;
        // The comment that ends where the parser is.
        let mut comment = String::new();
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Html(html) => comment.push_str(&html),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                    if let Some(block) = &mut block {
                        block.text.push_str(&text);
                    }
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let comment = std::mem::take(&mut comment);
                    let instead = comment.trim().strip_prefix("<!-- run instead\n");
                    block = Some(Block {
                        info: match kind {
                            CodeBlockKind::Fenced(info) => info.to_string(),
                            CodeBlockKind::Indented => String::new(),
                        },
                        instead: instead.map(|text| text.trim_end_matches("-->").to_string()),
                        ..Block::default()
                    });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Start(tag) => {
                    comment.clear();
                    match tag {
                        Tag::Heading { .. } => heading = Some(String::new()),
                        Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                            page.links.push(dest_url.to_string());
                        }
                        _ => {}
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let name = anchor(&heading.take().unwrap());
                    let new = page.anchors.insert(name.clone());
                    assert!(new, "{}: a second heading {name}", path.display());
                }
                _ => {}
            }
        }
        page
    }
}

/// A heading's name in links, as mdBook and code hosts make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|one| match one {
        ' ' => Some('-'),
        '-' | '_' => Some(one),
        one => one.is_alphanumeric().then_some(one),
    });
    kept.collect::<String>().to_lowercase()
}

/// The path without `.` and `..`. One that leads out of the repository is `None`.
fn simplified(path: &Path) -> Option<PathBuf> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => parts.pop().then_some(())?,
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    Some(parts)
}

/// What is wrong with the links of a page.
fn broken_links(path: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for link in Page::read(path).links {
        let outside = ["https://", "http://", "mailto:"];
        if outside.iter().any(|scheme| link.starts_with(scheme)) {
            continue;
        }
        let mut wrong = |why: &str| broken.push(format!("{}: {link}: {why}", path.display()));
        let (file, name) = match link.split_once('#') {
            Some((file, name)) => (file, Some(name)),
            None => (link.as_str(), None),
        };
        let target = match file {
            "" => Some(path.to_path_buf()),
            file => simplified(&path.parent().unwrap().join(file)),
        };
        let Some(target) = target.filter(|target| repository().join(target).exists()) else {
            wrong("there is no such file");
            continue;
        };
        if path.starts_with("docs") && !target.starts_with("docs") {
            wrong("a page of the book cannot link to a file outside of docs; name it as code");
        }
        if let Some(name) = name
            && !Page::read(&target).anchors.contains(name)
        {
            wrong("there is no such heading");
        }
    }
    broken
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages = pages();
    pages.insert(PathBuf::from("docs/SUMMARY.md"));
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "release/README.md",
    ] {
        pages.insert(PathBuf::from(page));
    }
    let broken: Vec<String> = pages.iter().flat_map(|page| broken_links(page)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_summary_lists_every_page_once() {
    let docs = Path::new("docs");
    let links = Page::read(&docs.join("SUMMARY.md")).links;
    let listed: BTreeSet<PathBuf> = links.iter().map(|link| docs.join(link)).collect();
    assert_eq!(listed.len(), links.len(), "a page is listed twice");
    assert_eq!(listed, pages());
}

#[test]
fn every_block_says_what_it_is() {
    for path in pages() {
        for block in Page::read(&path).blocks {
            let words: Vec<&str> = block.info.split(' ').collect();
            let known = match words[..] {
                [language] => !language.is_empty(),
                ["sh", "run" | "fails"] | ["text", "output"] => true,
                [_, word] => word.starts_with("file="),
                _ => false,
            };
            let path = path.display();
            assert!(
                known,
                "{path}: ```{}: docs/reference/about.md has the words",
                block.info
            );
        }
    }
}

#[test]
fn rust_on_the_pages_is_compiled() {
    let library = fs::read_to_string(repository().join("src/lib.rs")).unwrap();
    for path in pages() {
        let blocks = Page::read(&path).blocks;
        let language = |block: &Block| block.info.split(',').next() == Some("rust");
        let path = path.display().to_string();
        if blocks.iter().any(language) {
            assert!(
                library.contains(&format!("include_str!(\"../{path}\")")),
                "{path}"
            );
        }
    }
}

/// Whether the test runs commands of the block.
fn is_run(block: &Block) -> bool {
    ["sh run", "sh fails"].contains(&block.info.as_str())
}

/// A line with every number as `0`, and with single spaces.
fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(one) = rest.chars().next() {
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        match after_digits(digits) {
            Some(mut after) => {
                for [prefix, sign] in [[".", ""], ["e", "-"]] {
                    let part = after.strip_prefix(prefix);
                    let part = part.map(|part| part.strip_prefix(sign).unwrap_or(part));
                    after = part.and_then(after_digits).unwrap_or(after);
                }
                text.push('0');
                rest = after;
            }
            None => {
                text.push(one);
                rest = &rest[one.len_utf8()..];
            }
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What follows the digits that the text begins with, if it does.
fn after_digits(text: &str) -> Option<&str> {
    let after = text.trim_start_matches(|one: char| one.is_ascii_digit());
    (after.len() < text.len()).then_some(after)
}

/// Whether a line of the output is the one that a page shows, where `...` stands for any text.
fn is_shown(shown: &str, line: &str) -> bool {
    let line = without_numbers(line);
    let shown = without_numbers(shown);
    let mut parts = shown.split("...").map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        let Some(found) = rest.find(part) else {
            return false;
        };
        rest = &rest[found + part.len()..];
        open = part.is_empty();
    }
    open || rest.is_empty()
}

#[test]
fn numbers_and_space_may_differ_and_words_may_not() {
    assert_eq!(
        without_numbers("lr  1.5e-3 (-0.2), r2 1e x"),
        "lr 0 (0), r0 0e x"
    );
    assert!(is_shown(
        "accuracy 0.7660 (step 1000)",
        "accuracy 0.5 (step 31)"
    ));
    assert!(is_shown(
        "mtlora: the model...",
        "mtlora: the model has 3 outputs"
    ));
    assert!(is_shown(
        "mtlora: .../a.csv:3: no x",
        "mtlora: /tmp/b/a.csv:14: no x"
    ));
    for line in [
        "mtlora: /tmp/b/a.csv:14: no xy",
        "mtlora: /tmp/b/c.csv:14: no x",
    ] {
        assert!(!is_shown("mtlora: .../a.csv:3: no x", line));
    }
    assert!(!is_shown("accuracy 0.7660", "matthews 0.7660"));
    assert_eq!(
        anchor("A run's `folder`, in short"),
        "a-runs-folder-in-short"
    );
}

/// Runs the commands of a page in an empty folder with the repository's assets.
fn run_page(path: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in fs::read_dir(repository().join("assets")).unwrap() {
        let name = name.unwrap();
        if name.path().is_dir() {
            copy_folder(&name.path(), &folder.join("assets").join(name.file_name()));
        }
    }
    let program = Path::new(env!("CARGO_BIN_EXE_mtlora"));
    let mut search = vec![program.parent().unwrap().to_path_buf()];
    search.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let search = std::env::join_paths(search).unwrap();

    let mut printed = String::new();
    for block in Page::read(Path::new(path)).blocks {
        if let Some((_, file)) = block.info.split_once(" file=") {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, &block.text).unwrap();
        } else if is_run(&block) {
            let commands = block.instead.as_ref().unwrap_or(&block.text);
            // Both streams in one, as in a terminal.
            let script = format!("exec 2>&1\n{commands}");
            let output = Command::new("bash")
                .args(["-euo", "pipefail", "-c", &script])
                .current_dir(folder)
                .env("PATH", &search)
                .env("HF_HOME", folder.join("hub"))
                .env("HF_HUB_OFFLINE", "1")
                .env("TERM", "dumb")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            printed = String::from_utf8(output.stdout).unwrap();
            let expected = if block.info == "sh run" { 0 } else { 2 };
            let status = output.status.code();
            assert_eq!(status, Some(expected), "{path}:\n{commands}\n{printed}");
            assert!(
                !printed.contains("panicked"),
                "{path}:\n{commands}\n{printed}"
            );
        } else if block.info == "text output" {
            let mut lines = printed.lines();
            for shown in block.text.lines().filter(|shown| *shown != "...") {
                let found = lines.any(|line| is_shown(shown, line));
                assert!(
                    found,
                    "{path} shows\n{shown}\nand the commands before it print\n{printed}"
                );
            }
        }
    }
}

/// One test for each page with commands, so that they run beside each other.
macro_rules! pages_with_commands {
    ($($name:ident: $path:literal,)*) => {
        $(
            #[test]
            fn $name() {
                run_page($path);
            }
        )*

        #[test]
        fn no_page_with_commands_is_left_out() {
            let tested: BTreeSet<PathBuf> = [$($path),*].map(PathBuf::from).into();
            let has_commands = |path: &PathBuf| Page::read(path).blocks.iter().any(is_run);
            assert_eq!(tested, pages().into_iter().filter(has_commands).collect());
        }
    };
}

pages_with_commands! {
    the_first_run: "docs/task/start.md",
    labels: "docs/task/labels.md",
    numbers: "docs/task/numbers.md",
    data_to_text: "docs/task/data-to-text.md",
    chat: "docs/task/chat.md",
    training: "docs/task/training.md",
    using: "docs/task/using.md",
    sharing: "docs/task/sharing.md",
    the_hub: "docs/task/hub.md",
    methods: "docs/compare/methods.md",
    sweeps: "docs/compare/sweeps.md",
    the_paper: "docs/compare/paper.md",
    files: "docs/reference/files.md",
    errors: "docs/reference/errors.md",
    devices: "docs/reference/devices.md",
}
