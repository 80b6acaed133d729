#![allow(clippy::unwrap_used)]
use std::env;
use std::sync::OnceLock;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Two rows of each task in the form of its published train set, with our own sentences.
const SAMPLES: [(&str, &str); 9] = [
    (
        "cola",
        "gj04\t1\t\tThe \"boats\" sailed.\ngj04\t0\t*\tBoats the sailed.\n",
    ),
    (
        "sst2",
        "sentence\tlabel\na joy to watch \t1\nflat and \" dull \t0\n",
    ),
    (
        "mrpc",
        "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe said \"no.\tHe said \"no\".\r\n\
         0\t9\t10\tShares rose.\tShares fell.\r\n",
    ),
    (
        "stsb",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n\
         0\tg\tf\t2012\t01\tnone\tnone\tA man sings.\tA man is singing.\t5.000\n\
         1\tg\tf\t2012\t02\tnone\tnone\tA man sings.\tA dog runs.\t0.250\n",
    ),
    (
        "qqp",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWhy?\tWhy so?\t1\n1\t3\t4\tWho?\tWhen?\t0\n",
    ),
    (
        "mnli",
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t\
         sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n\
         0\t1\t1n\tg\tp\tp\tp\tp\tIt rains.\tIt is Monday.\tneutral\tneutral\n\
         1\t1\t1c\tg\tp\tp\tp\tp\tIt rains.\tIt is dry.\tcontradiction\tcontradiction\n",
    ),
    (
        "qnli",
        "index\tquestion\tsentence\tlabel\n0\tWho?\tShe did.\tentailment\n1\tWhen?\tShe did.\tnot_entailment\n",
    ),
    (
        "rte",
        "index\tsentence1\tsentence2\tlabel\n0\tA dog ran.\tA dog slept.\tnot_entailment\n\
         1\tA dog ran.\tA dog moved.\tentailment\n",
    ),
    (
        "wnli",
        "index\tsentence1\tsentence2\tlabel\n0\tI put it in as it was small.\tIt was small.\t1\n\
         1\tI put it in as it was small.\tI was small.\t0\n",
    ),
];

fn sample(name: &str) -> &'static str {
    SAMPLES.iter().find(|(task, _)| *task == name).unwrap().1
}

/// A task's own folder with one file.
fn folder(file: &str, bytes: impl AsRef<[u8]>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(file), bytes).unwrap();
    folder
}

fn read(name: &str, file: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<Example>, DataError> {
    let folder = folder(file, bytes);
    let split = file.strip_suffix(".tsv").unwrap();
    task(name).unwrap().read(folder.path(), split)
}

fn message(name: &str, file: &str, bytes: impl AsRef<[u8]>) -> String {
    read(name, file, bytes).unwrap_err().to_string()
}

#[test]
fn every_task_reads_its_published_form() {
    let second = [
        Target::Class(0),
        Target::Class(0),
        Target::Class(0),
        Target::Value(0.25),
        Target::Class(0),
        Target::Class(2),
        Target::Class(1),
        Target::Class(0),
        Target::Class(0),
    ];
    for ((name, text), target) in SAMPLES.into_iter().zip(second) {
        let examples = read(name, "train.tsv", text).unwrap();
        assert_eq!(examples.len(), 2, "{name}");
        assert_eq!(examples[1].target, Some(target), "{name}");
        assert_eq!(
            examples[0].pair.is_some(),
            task(name).unwrap().spec.pair.is_some()
        );
    }
    let cola = read("cola", "dev.tsv", sample("cola")).unwrap();
    assert_eq!(cola[0].text, "The \"boats\" sailed.");
    let sst2 = read("sst2", "dev.tsv", sample("sst2")).unwrap();
    assert_eq!(sst2[0].text, "a joy to watch ");
    let mrpc = read("mrpc", "dev.tsv", sample("mrpc")).unwrap();
    assert_eq!(mrpc[0].text, "He said \"no.");
    assert_eq!(mrpc[0].pair.as_deref(), Some("He said \"no\"."));
    let qnli = read("qnli", "dev.tsv", sample("qnli")).unwrap();
    assert_eq!(
        (qnli[0].text.as_str(), qnli[0].pair.as_deref()),
        ("Who?", Some("She did."))
    );
}

#[test]
fn names_classes_and_metrics_are_those_of_glue() {
    let names: Vec<String> = tasks().iter().map(|task| task.name().to_string()).collect();
    assert_eq!(names, SAMPLES.map(|(name, _)| name));
    assert_eq!(task("SST-2").unwrap().name(), "sst2");
    assert_eq!(task("MNLI").unwrap().dev_split(), "dev_matched");
    let error = task("glue").unwrap_err().to_string();
    assert!(
        error.contains("unknown task `glue`") && error.contains("`wnli`"),
        "{error}"
    );
    for task in tasks() {
        let regression = task.name() == "stsb";
        assert_eq!(task.objective().labels().is_empty(), regression);
        assert_eq!(task.main_metric(), task.metric_names()[0]);
        let num_labels = (!regression).then(|| task.objective().num_labels());
        for &metric in task.metric_names() {
            assert_eq!(crate::metrics::labels::check(metric, num_labels), Ok(()));
        }
    }
}

#[test]
fn a_file_is_found_in_either_folder_and_under_either_name() {
    let root = tempfile::tempdir().unwrap();
    let inside = root.path().join("MNLI");
    fs::create_dir(&inside).unwrap();
    let mnli = task("mnli").unwrap();
    fs::write(inside.join("dev_matched.tsv"), sample("mnli")).unwrap();
    for data in [root.path(), &inside] {
        for split in ["dev", "dev_matched"] {
            assert_eq!(mnli.read(data, split).unwrap().len(), 2);
        }
    }
    let error = mnli
        .read(root.path(), "dev_mismatched")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("dev_mismatched.tsv: no such file"),
        "{error}"
    );
    assert!(error.contains("`dev_matched.tsv`"), "{error}");
    let error = mnli.read(root.path(), "valid").unwrap_err().to_string();
    assert!(
        error.contains("no split `valid`") && error.contains("`test_matched`"),
        "{error}"
    );
    let error = mnli
        .read(&root.path().join("none"), "dev")
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not a folder"), "{error}");
}

#[test]
fn test_sets_need_no_labels_and_others_do() {
    let text = "index\tsentence\n0\tThe boats sailed.\n1\tMary sneezed.\n";
    for name in ["cola", "sst2"] {
        let examples = read(name, "test.tsv", text).unwrap();
        assert_eq!(examples[1].text, "Mary sneezed.");
        assert!(examples.iter().all(|example| example.target.is_none()));
        let error = message(name, "dev.tsv", text);
        assert!(error.contains("dev.tsv:1: no column `label`"), "{error}");
        assert!(error.contains("`index`, `sentence`"), "{error}");
    }
}

#[test]
fn an_error_says_on_which_line() {
    let header = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n";
    let error = message("rte", "train.tsv", format!("{header}\n1\ta\tentailment\n"));
    assert!(
        error.contains("train.tsv:4: only 3 columns instead of 4"),
        "{error}"
    );
    let error = message(
        "rte",
        "train.tsv",
        format!("{header}1\ta\ta\tb\tentailment\n"),
    );
    assert!(error.contains("train.tsv:3: 5 columns"), "{error}");
    let error = message("rte", "train.tsv", format!("{header}1\ta\tb\tmaybe\r\n"));
    assert!(
        error.contains("train.tsv:3: unknown label `maybe`"),
        "{error}"
    );
    assert!(error.contains("`entailment`, `not_entailment`"), "{error}");
    let error = message(
        "rte",
        "train.tsv",
        [header.as_bytes(), b"1\ta\xc3\tb\t"].concat(),
    );
    assert!(error.contains("train.tsv:3: invalid UTF-8"), "{error}");
    let header = sample("stsb").split('\n').next().unwrap();
    for score in ["5.1", "-0.1", "nan", "", "much"] {
        let row = format!("{header}\n0\tg\tf\ty\to\ts\ts\ta\tb\t{score}\n");
        let error = message("stsb", "train.tsv", row);
        assert!(error.contains("train.tsv:2: the score"), "{error}");
    }
    for (name, text) in SAMPLES {
        let file = format!("{}.tsv", task(name).unwrap().dev_split());
        assert!(
            matches!(read(name, &file, ""), Err(DataError::Empty { .. })),
            "{name}"
        );
        if name != "cola" {
            let header = text.split('\n').next().unwrap();
            assert!(
                matches!(read(name, &file, header), Err(DataError::Empty { .. })),
                "{name}"
            );
        }
    }
}

#[test]
fn a_few_broken_lines_of_qqp_are_left_out_and_counted() {
    let mut lines: Vec<String> = vec![sample("qqp").split('\n').next().unwrap().to_string()];
    lines.extend((0..2 * LINES_PER_BROKEN).map(|n| format!("{n}\t1\t2\tWhy?\tWho?\t0")));
    lines[5] = "4\t1\t2\tWhy".into();
    let data = folder("train.tsv", lines.join("\n"));
    let mut notes = Vec::new();
    let qqp = task("qqp").unwrap();
    let mut read = || {
        qqp.read_noting(data.path(), "train", &mut |note| {
            notes.push(note.to_string())
        })
    };
    assert_eq!(read().unwrap().len(), 2 * LINES_PER_BROKEN - 1);
    lines[6] = "?\tWho?\t0".into();
    fs::write(data.path().join("train.tsv"), lines.join("\n")).unwrap();
    assert_eq!(read().unwrap().len(), 2 * LINES_PER_BROKEN - 2);
    lines[7] = "too many".into();
    fs::write(data.path().join("train.tsv"), lines.join("\n")).unwrap();
    let error = read().unwrap_err().to_string();
    assert!(error.contains("train.tsv:6: only 4 columns"), "{error}");
    assert_eq!(notes.len(), 2);
    assert!(
        notes[1].contains("left out 2 of 2000 lines"),
        "{}",
        notes[1]
    );
    assert!(
        message("qqp", "train.tsv", format!("{}2\t1\n", sample("qqp"))).contains("train.tsv:4:")
    );
}

/// The folder with the published files, if it exists: the one that `MTLORA_GLUE` names, or `shared/data/glue`.
fn published() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/glue");
    let folder = env::var_os("MTLORA_GLUE").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

#[test]
fn every_row_of_the_published_files_is_read() {
    let Some(data) = published() else {
        eprintln!("skipped: MTLORA_GLUE names no folder");
        return;
    };
    let counts = [
        ("cola", "train", 8551),
        ("cola", "dev", 516),
        ("sst2", "train", 67_349),
        ("sst2", "dev", 872),
        ("mrpc", "train", 4076),
        ("mrpc", "dev", 1725),
        ("stsb", "train", 5749),
        ("stsb", "dev", 1500),
        ("rte", "train", 2490),
        ("rte", "dev", 277),
    ];
    for (name, split, count) in counts {
        let examples = task(name).unwrap().read(&data, split).unwrap();
        assert_eq!(examples.len(), count, "{name} {split}");
        assert!(examples.iter().all(|example| example.target.is_some()));
        assert!(
            examples
                .iter()
                .all(|example| !example.text.trim().is_empty())
        );
    }
    for (name, count) in [("rte", 3000), ("stsb", 1379)] {
        let examples = task(name).unwrap().read(&data, "test").unwrap();
        assert_eq!(examples.len(), count, "{name} test");
        assert!(examples.iter().all(|example| example.target.is_none()));
    }
}

/// The samples and, if they exist, the beginnings of the published files.
fn whole_files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files: Vec<Vec<u8>> = SAMPLES.map(|(_, text)| text.into()).to_vec();
        for task in tasks() {
            let Some(root) = published() else { break };
            if let Ok((_, text)) = task.text(&root, task.dev_split()) {
                files.push(text.into_bytes().into_iter().take(2000).collect());
            }
        }
        files
    })
}

/// Reads with every task and checks that an error names the file.
fn read_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    for task in tasks() {
        let split = task.dev_split();
        let file = format!("{split}.tsv");
        let data = folder(&file, bytes);
        match task.read(data.path(), split) {
            Ok(examples) => {
                prop_assert!(!examples.is_empty());
                for example in examples {
                    match example.target {
                        Some(Target::Class(class)) => {
                            prop_assert!(class < task.objective().num_labels())
                        }
                        Some(Target::Value(value)) => prop_assert!(SIMILARITY.contains(&value)),
                        None => prop_assert!(false, "a dev set without targets"),
                    }
                }
            }
            Err(error) => {
                let text = error.to_string();
                let line = format!("{file}:");
                prop_assert!(text.contains(&line), "{}", text);
                let after = text
                    .split(&line)
                    .nth(1)
                    .and_then(|rest| rest.chars().next());
                let numbered = after.is_some_and(|character| character.is_ascii_digit());
                prop_assert!(
                    numbered || matches!(error, DataError::Empty { .. }),
                    "{}",
                    text
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes)?;
    }

    #[test]
    fn no_damaged_file_makes_it_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, prop::sample::select(
            b"\t\n\r\"\xff\xc3\xef01.x".to_vec())), 1..8),
    ) {
        let mut bytes = which.get(whole_files()).clone();
        for (at, change, byte) in changes {
            let at = at.index(bytes.len().max(1));
            match change {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ => bytes.truncate(bytes.len().max(10) - at % 10),
            }
        }
        read_all(&bytes)?;
    }

    #[test]
    fn what_is_written_is_read(
        rows in prop::collection::vec(("[^\t\r\n]{0,20}", "[^\t\r\n]{0,20}", any::<bool>()), 1..20),
        end in prop::sample::select(vec!["\n", "\r\n"]),
    ) {
        let mut text = format!("index\tsentence1\tsentence2\tlabel{end}");
        for (index, (first, second, entailed)) in rows.iter().enumerate() {
            let label = if *entailed { "entailment" } else { "not_entailment" };
            text.push_str(&format!("{index}\t{first}\t{second}\t{label}{end}"));
        }
        let expected: Vec<Example> = rows.into_iter().map(|(text, pair, entailed)| Example {
            text,
            pair: Some(pair),
            target: Some(Target::Class(usize::from(!entailed))),
        }).collect();
        prop_assert_eq!(read("rte", "train.tsv", text).unwrap(), expected);
    }
}
