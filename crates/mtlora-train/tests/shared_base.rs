//! Several adapters over one base model hold the base's weights once. The test counts bytes.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

#[path = "../../mtlora-core/tests/common/allocations.rs"]
mod allocations;

use std::path::{Path, PathBuf};

use allocations::{held, process_peak_of};
use burn::module::Module;
use burn::tensor::Device;
use mtlora_core::{BaseDtype, Init, MtLoraConfig, Structure, Targets};
use mtlora_models::{EncoderConfig, EncoderSizes, MaskedLm, PeftAdapter, SequenceClassifier};
use mtlora_train::{
    AdapterSettings, BaseSpec, ClassifierSpec, HeadSpec, MethodName, NamedAdapter, Objective,
    RoutedRow, load_classifiers, predict_routed, task_config,
};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/tiny-roberta");

fn objective(outputs: usize) -> Objective {
    match outputs {
        1 => Objective::Regression,
        _ => Objective::Classification {
            labels: (0..outputs).map(|label| label.to_string()).collect(),
        },
    }
}

fn settings() -> AdapterSettings {
    AdapterSettings {
        method: MethodName::MtLora,
        structure: Structure::Shim.into(),
        rank: 2,
        alpha: 4.0,
        use_rslora: false,
        dropout: 0.0,
        init: Init::Zero,
        init_from: None,
        adalora: None,
        targets: Some("query,value".into()),
        projections: None,
        base_dtype: BaseDtype::F32,
    }
}

/// Makes an adapter with a head of `outputs` outputs on the model in `base`, in a folder of its own.
fn adapter(base: &Path, folder: &Path, outputs: usize) -> NamedAdapter<ClassifierSpec> {
    let device = Device::flex().autodiff();
    let objective = objective(outputs);
    let config = task_config(&EncoderConfig::from_folder(base).unwrap(), &objective).unwrap();
    let (model, _) = SequenceClassifier::from_folder(base, &config, 7, &device).unwrap();
    let model = MtLoraConfig::new(Structure::Shim)
        .with_rank(2)
        .with_alpha(4.0)
        .with_init(Init::Identity)
        .with_target_modules(Targets::names(["query", "value"]))
        .with_modules_to_save(vec!["classifier".into()])
        .with_seed(outputs as u64)
        .attach(model)
        .unwrap();
    let name = format!("of{outputs}");
    let folder = folder.join(&name);
    std::fs::create_dir(&folder).unwrap();
    let adapter = PeftAdapter::of(&model, &config, "base", false).unwrap();
    adapter.write(&folder).unwrap();
    let spec = ClassifierSpec {
        base: BaseSpec {
            model: base.to_path_buf(),
            max_length: 32,
            adapter: settings(),
        },
        head: HeadSpec {
            fresh: false,
            objective,
        },
        seed: 0,
    };
    NamedAdapter { name, folder, spec }
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn the_base_is_in_memory_once() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = EncoderConfig::from_folder(Path::new(TINY)).unwrap();
    // The vocabulary is the tiny model's, and the layers are larger than everything else.
    let sizes = EncoderSizes {
        vocab_size: tiny.vocab_size,
        hidden_size: 256,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        intermediate_size: 1024,
        max_tokens: 62,
    };
    let config = EncoderConfig::new(tiny.architecture, sizes)
        .unwrap()
        .for_masked_lm();
    let base = folder.path().join("base");
    std::fs::create_dir(&base).unwrap();
    let model = MaskedLm::fresh(&config, 0, &Device::flex()).unwrap();
    let base_bytes = 4 * model.num_params();
    model.save(&base, &config).unwrap();
    mtlora_models::copy_tokenizer_files(Path::new(TINY), &base).unwrap();
    let adapters: Vec<_> = [2, 3, 1, 4, 5, 6]
        .map(|outputs| adapter(&base, folder.path(), outputs))
        .into();

    let device = Device::flex();
    let loaded = |count: usize| {
        let before = held();
        let models = load_classifiers(&adapters[..count], &device).unwrap();
        (models, held() - before)
    };
    let (one, with_one) = loaded(1);
    drop(one);
    assert!(with_one > base_bytes * 9 / 10, "{with_one} of {base_bytes}");
    let (models, with_six) = loaded(6);
    let more = with_six.saturating_sub(with_one);
    assert!(
        more < base_bytes / 2,
        "five more adapters hold {more} bytes more; the base has {base_bytes}"
    );

    // Using them copies no weights either, and each row has the outputs of its own head.
    let rows: Vec<RoutedRow> = [5, 0, 2, 5, 1]
        .map(|adapter| RoutedRow {
            line: 1 + adapter,
            adapter,
            text: "The dogs sleep.".into(),
            pair: None,
        })
        .into();
    let (logits, peak) = process_peak_of(|| predict_routed(&models, &rows, &device).unwrap());
    assert!(peak < base_bytes / 2, "predicting held {peak} bytes");
    let outputs: Vec<usize> = logits.iter().map(Vec::len).collect();
    assert_eq!(outputs, [6, 2, 1, 6, 3]);
    // Rows of one adapter are computed together, so that they may differ in the last bits.
    for (one, other) in logits[0].iter().zip(&logits[3]) {
        assert!((one - other).abs() < 1e-5);
    }

    // In bfloat16, the logits are nearly the same and the base takes half the memory.
    drop(models);
    let mut halved = adapters.clone();
    for one in &mut halved {
        one.spec.base.adapter.base_dtype = BaseDtype::Bf16;
    }
    let before = held();
    let models = load_classifiers(&halved, &device).unwrap();
    let in_half = held() - before;
    assert!(
        in_half < with_six - base_bytes / 3,
        "{in_half} of {with_six}"
    );
    let rounded = predict_routed(&models, &rows, &device).unwrap();
    for (one, other) in logits.concat().iter().zip(rounded.concat()) {
        assert!((one - other).abs() < 0.02, "{one} {other}");
    }

    // All adapters must be over one base model in one precision.
    halved[1].spec.base.adapter.base_dtype = BaseDtype::F32;
    let error = load_classifiers(&halved, &device).err().unwrap();
    assert!(
        error.to_string().contains("in bf16, and of3 has"),
        "{error}"
    );
    let mut strangers = adapters[..2].to_vec();
    strangers[1].spec.base.model = PathBuf::from(TINY);
    let error = load_classifiers(&strangers, &device).err().unwrap();
    assert!(error.to_string().contains("of2 has"), "{error}");
}
