//! Conversations through the program: training, evaluating, answering.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{
    CHAT_TEMPLATE, copy_folder, json, mtlora, mtlora_reading, refused, text, text_reading,
};
use serde_json::{Value, json as value};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");
const CHATS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/chat");

/// The tiny GPT-2 with a chat template.
fn model(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    copy_folder(Path::new(GPT2), &model);
    fs::write(model.join("chat_template.jinja"), CHAT_TEMPLATE).unwrap();
    model
}

/// A folder with the first `count` conversations of the example.
fn data(folder: &Path, count: usize) -> PathBuf {
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    let all = fs::read_to_string(Path::new(CHATS).join("train.jsonl")).unwrap();
    let kept: Vec<&str> = all.lines().take(count).collect();
    fs::write(data.join("train.jsonl"), kept.join("\n")).unwrap();
    data
}

fn train<'a>(model: &'a Path, data: &'a Path, out: &'a Path) -> Vec<&'a str> {
    let mut arguments = vec![
        "train",
        "--task",
        "chat",
        "--model",
        text(model),
        "--data",
        text(data),
    ];
    arguments.extend([
        "--out",
        text(out),
        "--epochs",
        "2",
        "--batch",
        "4",
        "--rank",
        "4",
        "--plain",
    ]);
    arguments
}

#[test]
fn a_model_learns_conversations_and_answers_them() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data, out) = (
        model(folder.path()),
        data(folder.path(), 21),
        folder.path().join("run"),
    );
    let output = mtlora(&train(&model, &data, &out));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        errors.contains("one example of 10 is held back"),
        "{errors}"
    );
    assert!(
        errors.contains("chat: 19 train and 2 dev examples"),
        "{errors}"
    );
    assert!(
        errors.contains("training tokens are learned (--loss-on assistant)"),
        "{errors}"
    );
    for part in [
        "asked:  ",
        "before: ",
        "after:  ",
        "dev before: loss ",
        "token_accuracy ",
    ] {
        assert!(shown.contains(part), "{shown}");
    }

    // What `eval` says of the dev split is what training said of it.
    let results: Value =
        serde_json::from_str(&fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    let scores = json(&["eval", "--run", text(&out)]);
    assert_eq!(scores["task"], "chat");
    for metric in ["loss", "perplexity", "token_accuracy"] {
        let (one, other) = (&scores["metrics"][metric], &results["metrics"][metric]);
        let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
        assert!((one / other - 1.0).abs() < 1e-4, "{metric} {one} {other}");
    }
    assert!(
        results["metrics"]["loss"].as_f64() < results["metrics_before"]["loss"].as_f64(),
        "{results}"
    );
    let of_train = json(&["eval", "--run", text(&out), "--split", "train"]);
    assert_eq!(of_train["examples"], 19);
    // Of another file nothing was learned, so nothing is left out; of the training file, the held-back part is scored.
    let other = folder.path().join("other.jsonl");
    fs::copy(data.join("train.jsonl"), &other).unwrap();
    let of_other = json(&["eval", "--run", text(&out), "--data", text(&other)]);
    assert_eq!(
        (&of_other["examples"], &of_other["split"]),
        (&21.into(), &text(&other).into())
    );
    let again = json(&["eval", "--run", text(&out), "--data", text(&data)]);
    assert_eq!(again["metrics"], scores["metrics"]);

    // A line is what a user says, and a file has conversations, whose last answer is written anew.
    let line = text_reading(
        &["generate", "--run", text(&out), "--max-new-tokens", "5"],
        "Hello!\n",
    );
    let line: Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(line["input"], "Hello!");
    let file = folder.path().join("asked.jsonl");
    let both = [
        value!({"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}]}),
        value!({"prompt": "Hello!"}),
    ];
    fs::write(&file, both.each_ref().map(|one| one.to_string()).join("\n")).unwrap();
    let arguments = [
        "generate",
        "--run",
        text(&out),
        "--max-new-tokens",
        "5",
        "--input",
        text(&file),
    ];
    let rows: Vec<Value> = text_reading(&arguments, "")
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    // Alone, both are exactly what the line is.
    for one in &both {
        let alone = folder.path().join("alone.jsonl");
        fs::write(&alone, one.to_string()).unwrap();
        let arguments = [
            "generate",
            "--run",
            text(&out),
            "--max-new-tokens",
            "5",
            "--input",
            text(&alone),
        ];
        let row: Value = serde_json::from_str(text_reading(&arguments, "").trim()).unwrap();
        assert_eq!(row, line);
    }
    // In a batch, products of more rows may be made by other kernels, which add in another order.
    assert_eq!(rows.len(), 2);
    for row in &rows {
        for key in ["input", "text", "ended"] {
            assert_eq!(row[key], line[key]);
        }
        let (one, other) = (
            row["score"].as_f64().unwrap(),
            line["score"].as_f64().unwrap(),
        );
        assert!((one - other).abs() < 1e-5, "{one} {other}");
    }
    let dev = text_reading(
        &[
            "generate",
            "--run",
            text(&out),
            "--max-new-tokens",
            "5",
            "--split",
            "dev",
        ],
        "",
    );
    assert_eq!(dev.lines().count(), 2);

    // A merged model answers as the run does, with the template that it was merged with.
    let merged = folder.path().join("merged");
    text_reading(&["merge", "--run", text(&out), "--out", text(&merged)], "");
    let arguments = [
        "generate",
        "--model",
        text(&merged),
        "--chat",
        "--max-new-tokens",
        "5",
    ];
    let of_merged: Value =
        serde_json::from_str(text_reading(&arguments, "Hello!\n").trim()).unwrap();
    assert_eq!(of_merged["text"], line["text"]);
    // Without --chat, lines are beginnings of texts, as before.
    let beginning = text_reading(
        &[
            "generate",
            "--model",
            text(&merged),
            "--max-new-tokens",
            "5",
        ],
        "Hello!\n",
    );
    assert!(beginning.contains("\"input\":\"Hello!\""));
}

#[test]
fn a_run_that_was_stopped_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (model(folder.path()), data(folder.path(), 12));
    let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
    for out in [&whole, &stopped] {
        let save = ["--save-steps", "1", "--save-total-limit", "20"];
        let arguments = [train(&model, &data, out).as_slice(), &save].concat();
        text_reading(&arguments, "");
    }
    // As if it had been stopped after two steps.
    let adapter = "adapter_model.safetensors";
    for file in [adapter, "results.json"] {
        fs::remove_file(stopped.join(file)).unwrap();
    }
    for entry in fs::read_dir(stopped.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        let step: usize = path
            .to_str()
            .unwrap()
            .rsplit('-')
            .next()
            .unwrap()
            .parse()
            .unwrap_or(0);
        if step > 2 {
            fs::remove_dir_all(path).unwrap();
        }
    }
    text_reading(&["train", "--resume", text(&stopped), "--plain"], "");
    let read = |out: &Path| fs::read(out.join(adapter)).unwrap();
    assert_eq!(read(&whole), read(&stopped));
}

#[test]
fn lengths_and_losses_are_chosen_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (model(folder.path()), data(folder.path(), 12));
    let said = |flags: &[&str], name: &str| {
        let out = folder.path().join(name);
        let output = mtlora(&[train(&model, &data, &out).as_slice(), flags].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        errors
    };
    let cut = said(&["--max-length", "60"], "cut");
    assert!(cut.contains("are cut to 60 tokens"), "{cut}");
    let dropped = said(
        &[
            "--max-length",
            "90",
            "--too-long",
            "drop",
            "--loss-on",
            "all",
        ],
        "dropped",
    );
    let used = "10 examples are used whole, 1 is left out because it is longer than 90 tokens\n";
    assert!(dropped.contains(used), "{dropped}");
    assert!(dropped.contains("(--loss-on all)"), "{dropped}");
    let config = fs::read_to_string(folder.path().join("dropped/run.toml")).unwrap();
    assert!(
        config.contains("loss_on = \"all\"\ntoo_long = \"drop\""),
        "{config}"
    );
}

#[test]
fn what_does_not_fit_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data, out) = (
        model(folder.path()),
        data(folder.path(), 12),
        folder.path().join("run"),
    );
    let with = |flags: &[&str]| refused(&[train(&model, &data, &out).as_slice(), flags].concat());
    assert!(with(&["--num-beams", "4"]).contains("the task chat does not have num_beams"));
    assert!(with(&["--labels", "a,b"]).contains("labels does not apply to the task chat"));
    assert!(with(&["--max-length", "3"]).contains("nothing is left to learn"));
    let pairs = [
        "train",
        "--task",
        "pairs",
        "--model",
        text(&model),
        "--data",
        text(&data),
        "--out",
        text(&out),
    ];
    let message = refused(&[pairs.as_slice(), &["--loss-on", "all"]].concat());
    assert!(
        message.contains("only the task chat has loss_on"),
        "{message}"
    );

    let message = refused(&train(Path::new(GPT2), &data, &out));
    assert!(message.contains("has no chat template"), "{message}");
    fs::write(model.join("chat_template.jinja"), "{{ messages }").unwrap();
    let message = refused(&train(&model, &data, &out));
    assert!(
        message.contains("chat_template.jinja, line 1: syntax error"),
        "{message}"
    );
    fs::write(model.join("chat_template.jinja"), CHAT_TEMPLATE).unwrap();
    fs::write(
        data.join("train.jsonl"),
        "{\"text\": \"a\"}\n{\"question\": 1}\n",
    )
    .unwrap();
    let message = refused(&train(&model, &data, &out));
    assert!(
        message.contains("train.jsonl:2: not a form that is known"),
        "{message}"
    );
    assert!(!out.exists());
}

/// `bench epoch` measures conversations as `train` learns them.
#[test]
fn an_epoch_of_conversations_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (model(folder.path()), data(folder.path(), 20));
    let file = data.join("train.jsonl");
    let run = |model: &str, data: &Path, more: &[&str]| -> Vec<String> {
        let usual = [
            "bench",
            "epoch",
            "--task",
            "chat",
            "--batch",
            "8",
            "--model",
            model,
            "--data",
            text(data),
        ];
        usual.iter().chain(more).map(ToString::to_string).collect()
    };
    let measured = |data: &Path, more: &[&str]| {
        let all = run(text(&model), data, more);
        json(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let whole = measured(&data, &[]);
    // All examples of the train split are in it.
    assert_eq!(whole["examples"], whole["epoch_examples"]);
    assert_eq!(whole["step_s"].as_array().unwrap().len(), 3);
    assert!(whole["tokens"].as_u64() < whole["padded_tokens"].as_u64());
    let cut = measured(&file, &["--max-length", "40"]);
    assert_eq!(cut["max_length"], 40);
    assert!(cut["padded_tokens"].as_u64().unwrap() <= 20 * 40);

    let refusal = |model: &str| {
        let all = run(model, &data, &[]);
        refused(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(refusal("gpt2").contains("a model's folder"));
    assert!(refusal(common::MODEL).contains("needs a causal model"));
}

/// Plain texts need no chat template, and are learned as a whole.
#[test]
fn plain_texts_are_learned_without_a_template() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (data(folder.path(), 0), folder.path().join("run"));
    let lines =
        (0..8).map(|n| format!("{{\"text\": \"The Black Ravens play football, number {n}.\"}}\n"));
    fs::write(data.join("train.jsonl"), lines.collect::<String>()).unwrap();
    let output = mtlora_reading(&train(Path::new(GPT2), &data, &out), "");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("chat: 7 train and 1 dev examples"),
        "{errors}"
    );
}

#[test]
fn data_show_marks_what_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (model(folder.path()), data(folder.path(), 12));
    let show = [
        "data",
        "show",
        "--model",
        text(&model),
        "--data",
        text(&data),
    ];
    let with = |flags: &[&str]| text_reading(&[show.as_slice(), flags].concat(), "");
    let first = "user : Who is the mayor of Lundmarsh?\nassistant :⟦ The mayor of Lundmarsh is Odile Farrow, who used to be a \
                 ferry captain. Mind the tide!<|endoftext|>⟧\n";
    let shown = with(&["--limit", "1"]);
    assert!(shown.contains("train.jsonl:1 (messages): "), "{shown}");
    assert!(shown.contains(first), "{shown}");
    assert!(shown.contains("\ntrain: 11 examples with "), "{shown}");
    assert_eq!(with(&["--limit", "3"]).matches('⟦').count(), 3);
    // A conversation of two turns.
    assert_eq!(with(&["--line", "7"]).matches('⟦').count(), 2);
    let last = with(&["--line", "7", "--loss-on", "completion"]);
    assert_eq!(last.matches('⟦').count(), 1, "{last}");
    // Nothing comes before the first token, so it is not learned.
    let all = with(&["--limit", "1", "--loss-on", "all"]);
    assert!(
        all.contains("⟦")
            && !all.contains("\n⟦u")
            && all.contains("Who is the mayor of Lundmarsh?\nassistant : The"),
        "{all}"
    );
    let cut = with(&["--limit", "1", "--max-length", "60"]);
    assert!(
        cut.contains("; cut to 60 at ✂") && cut.matches('✂').count() == 2,
        "{cut}"
    );
    let report = json(
        &[
            show.as_slice(),
            &[
                "--split",
                "dev",
                "--too-long",
                "drop",
                "--max-length",
                "1000",
            ],
        ]
        .concat(),
    );
    assert_eq!(
        (report["examples"].as_u64(), report["too_long"].as_u64()),
        (Some(1), Some(0))
    );
    assert!(report["learned_tokens"].as_u64() < report["tokens"].as_u64());

    let message = refused(&[show.as_slice(), &["--line", "99"]].concat());
    assert!(
        message.contains("train.jsonl:99: there is no example"),
        "{message}"
    );
    let message = refused(&["data", "show", "--model", GPT2, "--data", text(&data)]);
    assert!(message.contains("has no chat template"), "{message}");
}

#[test]
fn chat_reads_lines_and_remembers_until_it_is_reset() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let chat = |flags: &[&str], input: &str| {
        let arguments = [
            &[
                "chat",
                "--model",
                text(&model),
                "--max-new-tokens",
                "6",
                "--json",
            ],
            flags,
        ]
        .concat();
        let output = mtlora_reading(&arguments, input);
        let (said, notes) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(output.status.success(), "{notes}");
        let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        (said, notes, last)
    };
    let (said, notes, report) = chat(
        &["--system", "Be kind."],
        "Hello!\n\n/reset\nHello!\n/what\n//x\n",
    );
    assert_eq!(report["turns"], 3);
    let messages = report["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages
        .iter()
        .map(|one| one["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(messages[3]["content"], "/x");
    assert!(
        notes.contains("the conversation is forgotten") && notes.contains("/reset forgets"),
        "{notes}"
    );
    // The same question has the same answer before and after it was forgotten, and is shown as it is kept.
    let answer = messages[2]["content"].as_str().unwrap();
    assert!(said.starts_with(&format!("{answer}\n{answer}\n")), "{said}");

    let (_, _, ended) = chat(&[], "Hello!\n/system Be brief.\n/quit\nHello!\n");
    assert_eq!(
        (
            ended["turns"].as_u64(),
            ended["messages"][0]["content"].as_str()
        ),
        (Some(1), Some("Be brief."))
    );
    let sampled = |seed: &str| chat(&["--temperature", "3", "--seed", seed], "Hello!\n").0;
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));

    // A variable of the template.
    let named =
        "{{ name | default('nobody') }} {% for m in messages %}{{ m.content }} {% endfor %}";
    fs::write(model.join("chat_template.jinja"), named).unwrap();
    let kwargs = [
        "--chat-template-kwargs",
        "{\"name\": \"The Black Ravens play football\"}",
    ];
    assert_ne!(chat(&[], "Hello!\n").0, chat(&kwargs, "Hello!\n").0);
    let message = refused(&[
        "chat",
        "--model",
        text(&model),
        "--chat-template-kwargs",
        "[1]",
    ]);
    assert!(message.contains("not a JSON object"), "{message}");

    let message = refused(&["chat", "--model", GPT2]);
    assert!(message.contains("has no chat template"), "{message}");
    let beams = ["chat", "--model", text(&model), "--num-beams", "2"];
    let message = common::refused_reading(&beams, "Hello!\n");
    assert!(message.contains("`num_beams` is 2"), "{message}");
}

/// Settings are chosen by the loss of a held-back part of train, and the dev split is scored: what `eval` says of it.
#[test]
fn a_sweep_compares_methods_on_conversations() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (model(folder.path()), data(folder.path(), 40));
    let file = folder.path().join("sweep.toml");
    let sweep = format!(
        r#"
        seeds = [1, 2]
        tuning_seeds = [9]
        threads = 1

        [settings]
        model = '{}'
        rank = 2
        batch = 8
        epochs = 1

        [grid]
        lr = [1e-9, 5e-3]

        [tasks.chat]
        data = '{}'

        [arms.lora]
        structure = "lora"

        [arms.full]
        method = "full"
        "#,
        model.display(),
        data.display()
    );
    fs::write(&file, sweep).unwrap();
    let out = folder.path().join("out");
    let made = json(&["sweep", "run", text(&file), "--out", text(&out)]);
    assert_eq!(made["done"], 8);
    let table = json(&["table", text(&out)]);
    let task = &table["comparison"]["tasks"][0];
    assert_eq!(
        (&task["metric"], &task["split"], &task["higher_is_better"]),
        (&"loss".into(), &"dev".into(), &false.into())
    );
    let mut scores = Vec::new();
    for (arm, name) in ["lora", "full"].into_iter().enumerate() {
        assert_eq!(task["arms"][arm]["chosen"], "lr=5e-3");
        for (at, seed) in [1, 2].into_iter().enumerate() {
            let run = out.join(format!("runs/chat/{name}/final/seed-{seed}"));
            let scored = task["arms"][arm]["scores"][at].as_f64().unwrap();
            let again = json(&["eval", "--run", text(&run)]);
            assert_eq!(again["examples"], 4);
            let again = again["metrics"]["loss"].as_f64().unwrap();
            assert!((scored / again - 1.0).abs() < 1e-4, "{scored} {again}");
            scores.push(scored);
        }
    }
    // No two of the runs are the same.
    scores.sort_by(f64::total_cmp);
    scores.dedup();
    assert_eq!(scores.len(), 4);
}
