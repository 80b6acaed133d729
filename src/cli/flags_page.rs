//! Writes `docs/reference/flags.md`: every command with its flags, from their definitions.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use super::Cli;

const BEGINNING: &str = "\
# Every flag

<!-- Written by a test from the program's definitions; `MTLORA_BLESS=1 cargo test --release --workspace --bin mtlora
     the_page_of_flags` regenerates it. -->

`mtlora help COMMAND` prints the same. Exit statuses are on the page about [errors](errors.md), environment variables on the one about
[devices](devices.md#environment-variables).
";

/// The page.
fn page() -> String {
    let mut program = Cli::command();
    program.build();
    let commands: Vec<&Command> = program
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
        .collect();
    let mut page = BEGINNING.to_string();
    page.push_str("\n## All commands\n\nThese flags may be given to every command.\n");
    let of_all = program
        .get_arguments()
        .filter(|argument| argument.is_global_set());
    flags(&mut page, of_all.collect());
    page.push_str("\n| command | what it does |\n|---|---|\n");
    for command in &commands {
        let name = command.get_name();
        let about = cell(&command.get_about().unwrap().to_string());
        writeln!(page, "| [`mtlora {name}`](#mtlora-{name}) | {about} |").unwrap();
    }
    for command in &commands {
        describe(&mut page, "mtlora", command, "##");
    }
    page
}

/// Adds a command with its flags and its subcommands.
fn describe(page: &mut String, parent: &str, command: &Command, heading: &str) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about()).unwrap();
    write!(page, "\n{heading} {name}\n\n{about}.\n").unwrap();
    let shown: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && !argument.is_global_set())
        .filter(|argument| argument.get_id() != "help")
        .collect();
    // Flags under a heading of their own come after the others, as in the help.
    let mut headings: Vec<Option<&str>> = vec![None];
    for argument in &shown {
        if !headings.contains(&argument.get_help_heading()) {
            headings.push(argument.get_help_heading());
        }
    }
    for heading in headings {
        let (mut these, others): (Vec<&Arg>, Vec<&Arg>) = shown
            .iter()
            .filter(|argument| argument.get_help_heading() == heading)
            .partition(|argument| argument.is_positional());
        these.extend(others);
        if these.is_empty() {
            continue;
        }
        if let Some(heading) = heading {
            write!(page, "\n**{heading}**\n").unwrap();
        }
        flags(page, these);
    }
    for subcommand in command
        .get_subcommands()
        .filter(|one| one.get_name() != "help")
    {
        describe(page, &name, subcommand, &format!("{heading}#"));
    }
}

/// Adds a table of flags.
fn flags(page: &mut String, arguments: Vec<&Arg>) {
    page.push_str("\n| flag | meaning |\n|---|---|\n");
    for argument in arguments {
        let help = argument.get_long_help().or(argument.get_help());
        let mut meaning = cell(&help.unwrap_or_default().to_string());
        // The help names them itself.
        let values = if argument.is_hide_possible_values_set() {
            Vec::new()
        } else {
            argument.get_possible_values()
        };
        for value in &values {
            if let Some(help) = value.get_help() {
                let help = cell(&help.to_string());
                write!(meaning, "; `{}`: {help}", value.get_name()).unwrap();
            }
        }
        if !meaning.contains("[possible values") && argument.get_action().takes_values() {
            let plain = values.iter().filter(|value| value.get_help().is_none());
            let names: Vec<String> = plain
                .map(|value| format!("`{}`", value.get_name()))
                .collect();
            if !names.is_empty() {
                write!(meaning, " [{}]", names.join(", ")).unwrap();
            }
        }
        let defaults: Vec<_> = argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        if !defaults.is_empty() && argument.get_action().takes_values() {
            write!(meaning, " [default: {}]", defaults.join(", ")).unwrap();
        }
        if let Some(aliases) = argument.get_visible_aliases() {
            for alias in aliases {
                write!(meaning, " [alias: --{alias}]").unwrap();
            }
        }
        if argument.is_required_set() {
            meaning.push_str(" [needed]");
        }
        writeln!(page, "| `{argument}` | {meaning} |").unwrap();
    }
}

/// A text in one cell of a Markdown table.
fn cell(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|").replace('<', "\\<")
}

// A build without the Hub has fewer commands.
#[cfg(feature = "hub")]
#[test]
fn the_page_of_flags_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/flags.md");
    let page = page();
    if std::env::var_os("MTLORA_BLESS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    let differs = page
        .lines()
        .zip(found.lines())
        .find(|(wanted, found)| wanted != found);
    assert!(
        page == found,
        "{} is not what the program has: {differs:?}; regenerate it with\n    \
         MTLORA_BLESS=1 cargo test --release --workspace --bin mtlora the_page_of_flags",
        path.display()
    );
}
