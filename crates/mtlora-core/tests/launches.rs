//! Operations reach their kernels on CubeCL's devices, through automatic differentiation and fusion.
#![cfg(feature = "cube")]
#![allow(clippy::unwrap_used)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, EmbeddingConfig, LinearConfig};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use mtlora_core::{
    ActivationDtype, AttentionForm, BaseDtype, Contexts, DeviceCounts, Gelu, SequenceOffsets,
    SquaredNorm, adapted_embedding, adapted_linear, cached_attention, capabilities,
    count_device_work, devices, dropout, fused_segment_attention, gelu, layer_norm, read,
    residual_layer_norm, rms_norm, rotate_heads, segment_attention, swiglu, tied_cross_entropy,
};

/// Counts are those of the whole process, so that one test at a time may use the device.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn counts(device: &Device, work: impl FnOnce()) -> DeviceCounts {
    count_device_work(device, work).unwrap().1
}

/// The device of the build that kernels are compiled for.
fn device() -> Device {
    let mut others = devices().into_iter().map(|named| named.device);
    others
        .find(|device| !capabilities(device).on_host)
        .unwrap()
        .autodiff()
}

fn random(shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::random(shape, Distribution::Default, device)
}

/// A tensor of random values whose gradient is wanted.
fn tracked(shape: [usize; 2], device: &Device) -> Tensor<2> {
    random(shape, device).require_grad()
}

/// Computes the gradient of `sum(y * dy)` with respect to `x`, and waits for it.
fn differentiate(y: Tensor<2>, dy: Tensor<2>, x: &Tensor<2>) {
    let gradients = (y * dy).sum().backward();
    x.grad(&gradients).unwrap().into_data();
}

#[test]
fn dropout_is_one_launch_in_each_pass() {
    let _alone = alone();
    let device = device();
    let module: Dropout = DropoutConfig::new(0.3).init();
    let (x, dy) = (tracked([6, 10], &device), random([6, 10], &device));
    let launches = counts(&device, || {
        differentiate(dropout(&module, x.clone()), dy, &x);
    });
    assert_eq!(launches.launches_of("DropoutKernel"), 2, "{launches:?}");
}

#[test]
fn cross_entropy_is_one_launch_a_chunk() {
    let _alone = alone();
    let device = device();
    let hidden = tracked([6, 8], &device);
    let embedding = random([30, 8], &device);
    let targets = TensorData::from([1i64, 0, 29, 4, 5, 6]);
    let targets = Tensor::<1, Int>::from_data(targets, &device);
    let launches = counts(&device, || {
        let loss = tied_cross_entropy(hidden.clone(), embedding.clone(), targets.clone(), 0.1);
        hidden.grad(&loss.backward()).unwrap().into_data();
    });
    assert_eq!(
        launches.launches_of("CrossEntropyGradientKernel"),
        1,
        "{launches:?}"
    );
    assert_eq!(
        launches.launches_of("CrossEntropyKernel"),
        0,
        "{launches:?}"
    );

    let launches = counts(&device, || {
        let hidden = hidden.inner();
        tied_cross_entropy(hidden, embedding.inner(), targets.inner(), 0.1).into_data();
    });
    assert_eq!(
        launches.launches_of("CrossEntropyKernel"),
        1,
        "{launches:?}"
    );
    assert_eq!(
        launches.launches_of("CrossEntropyGradientKernel"),
        0,
        "{launches:?}"
    );
}

#[test]
fn normalisation_is_one_launch_in_each_pass() {
    let _alone = alone();
    let device = device();
    let (x, dy) = (tracked([6, 64], &device), random([6, 64], &device));
    let gamma = Tensor::<1>::random([64], Distribution::Default, &device);
    let beta = Tensor::<1>::random([64], Distribution::Default, &device);
    let launches = counts(&device, || {
        let y = layer_norm(x.clone(), gamma.clone(), beta.clone(), 1e-5);
        differentiate(y, dy, &x);
    });
    assert_eq!(
        launches.launches_of("NormalizeRowsKernel"),
        1,
        "{launches:?}"
    );
    assert_eq!(
        launches.launches_of("NormalizeRowsBackwardKernel"),
        1,
        "{launches:?}"
    );
}

/// It has no kernel of its own, since fusion makes one of each pass.
#[test]
fn gelu_is_fused_into_one_launch_in_each_pass() {
    let _alone = alone();
    let device = device();
    for form in [Gelu::Erf, Gelu::Tanh] {
        let (x, dy) = (tracked([6, 64], &device), random([6, 64], &device));
        let forward = counts(&device, || {
            gelu(x.clone(), form, ActivationDtype::F32).into_data();
        });
        assert_eq!(forward.launches_of("ElemwiseFuse"), 1, "{forward:?}");
        assert_eq!(forward.total_launches(), 1, "{forward:?}");
        let both = || {
            differentiate(gelu(x.clone(), form, ActivationDtype::F32), dy.clone(), &x);
        };
        // The first time, the sum is tuned.
        both();
        let both = counts(&device, both);
        assert_eq!(both.launches_of("ElemwiseFuse"), 2, "{both:?}");
    }
}

/// Rounding the inputs, and reading them again, costs no launch of its own.
#[test]
fn activations_that_keep_bfloat16_are_one_launch_in_each_pass() {
    let _alone = alone();
    let device = device();
    let (x, dy) = (tracked([6, 65], &device), random([6, 65], &device));
    let up = random([6, 65], &device);
    let saved = ActivationDtype::Bf16;
    let launches = counts(&device, || {
        differentiate(gelu(x.clone(), Gelu::Erf, saved), dy.clone(), &x);
        differentiate(swiglu(x.clone(), up.clone(), saved), dy.clone(), &x);
    });
    for kernel in [
        "GeluAndRoundKernel",
        "RoundedGeluBackwardKernel",
        "SwigluAndRoundKernel",
        "RoundedSwigluBackwardKernel",
    ] {
        assert_eq!(launches.launches_of(kernel), 1, "{kernel}: {launches:?}");
    }
    assert_eq!(launches.launches_of("RoundKernel"), 0, "{launches:?}");
    assert_eq!(launches.launches_of("WidenKernel"), 0, "{launches:?}");
}

/// Attention rounds its inputs in one launch and widens them in another, and does not compute the forward pass again. Inputs that the
/// graph keeps for other operations are rounded one by one.
#[test]
fn attention_that_keeps_bfloat16_has_two_launches_more() {
    let _alone = alone();
    let device = device();
    let module: Dropout = DropoutConfig::new(0.1).init();
    let offsets = SequenceOffsets::from_lengths(&[5, 1, 40]).unwrap();
    let (fused, dy) = (tracked([46, 36], &device), random([46, 12], &device));
    let launches = counts(&device, || {
        let saved = ActivationDtype::Bf16;
        let y = fused_segment_attention(fused.clone(), &offsets, 3, true, &module, saved);
        differentiate(y, dy.clone(), &fused);
    });
    assert_three_of_attention(&launches);
    for kernel in ["RoundValuesKernel", "WidenKernel"] {
        assert_eq!(launches.launches_of(kernel), 1, "{kernel}: {launches:?}");
    }
    let (x, dy) = (tracked([46, 12], &device), random([46, 12], &device));
    let launches = counts(&device, || {
        let saved = ActivationDtype::Bf16;
        let inputs = [1.0, 2.0, 3.0].map(|factor| x.clone() * factor);
        let y = segment_attention(inputs, &offsets, AttentionForm::causal(3), &module, saved);
        differentiate(y, dy.clone(), &x);
    });
    assert_three_of_attention(&launches);
    for kernel in ["RoundProjectionsKernel", "WidenProjectionsKernel"] {
        assert_eq!(launches.launches_of(kernel), 1, "{kernel}: {launches:?}");
    }
}

/// No kernel moves more than 1.3 times the bytes that its operation needs, which are those of each matrix once.
#[test]
fn kernels_move_little_more_than_they_need() {
    let _alone = alone();
    let device = device();
    let (rows, width) = (64, 96);
    let (x, dy) = (
        tracked([rows, width], &device),
        random([rows, width], &device),
    );
    let other = random([rows, width], &device);
    let fused = tracked([rows, 3 * width], &device);
    let embedding = random([2 * width, width], &device);
    let [gamma, beta] = [(); 2].map(|()| Tensor::<1>::ones([width], &device));
    let [cos, sin] = [(); 2].map(|()| random([rows, 8], &device.clone().inner()));
    let targets: Vec<i64> = (0..rows as i64).collect();
    let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device);
    let offsets = SequenceOffsets::from_lengths(&[20, 30, 14]).unwrap();
    let module: Dropout = DropoutConfig::new(0.1).init();
    let (exact, rounded) = (ActivationDtype::F32, ActivationDtype::Bf16);
    let launches = counts(&device, || {
        let of = |y: Tensor<2>| differentiate(y, dy.clone(), &x);
        of(dropout(&module, x.clone()));
        of(layer_norm(x.clone(), gamma.clone(), beta.clone(), 1e-5));
        of(rms_norm(x.clone(), gamma.clone(), 1e-5));
        of(rotate_heads(x.clone(), cos.clone(), sin.clone()));
        of(gelu(x.clone(), Gelu::Tanh, rounded));
        of(swiglu(x.clone(), other.clone(), rounded));
        let inputs = [x.clone(), tracked([rows, width], &device)];
        of(residual_layer_norm(
            inputs,
            &module,
            gamma.clone(),
            beta.clone(),
            1e-5,
        ));
        let y = fused_segment_attention(fused.clone(), &offsets, 4, false, &module, exact);
        differentiate(y, dy.clone(), &fused);
        let loss = tied_cross_entropy(x.clone(), embedding.clone(), targets.clone(), 0.1);
        x.grad(&loss.backward()).unwrap().into_data();
    });
    // Matrices of 32-bit floats, of `rows` by `width`.
    let needed = [
        ("DropoutKernel", 4.0),
        ("NormalizeRowsKernel", 2.0),
        ("NormalizeRowsBackwardKernel", 3.0),
        ("RmsNormalizeRowsKernel", 2.0),
        ("RmsNormalizeRowsBackwardKernel", 3.0),
        ("RotateHeadsKernel", 4.0),
        ("GeluAndRoundKernel", 2.5),
        ("RoundedGeluBackwardKernel", 2.5),
        ("SwigluAndRoundKernel", 4.0),
        ("RoundedSwigluBackwardKernel", 4.0),
        ("AddAndNormalizeRowsKernel", 4.0),
        ("AddAndNormalizeRowsBackwardKernel", 4.0),
        // On a card, and on a driver that computes on the processor.
        ("AttentionForward AttentionForwardByRow", 4.0),
        ("CrossEntropyGradientKernel", 4.0),
    ];
    for (kernels, matrices) in needed {
        let moved = kernels
            .split(' ')
            .filter_map(|name| launches.moved_by_kernel.get(name));
        let times = moved.sum::<u64>() as f64 / (matrices * (4 * rows * width) as f64);
        assert!(
            (0.99..=1.3).contains(&times),
            "{kernels}: {times} times, {launches:?}"
        );
    }
}

/// Fusion makes one launch of an exponential and a sum. The second time, its kernel is there.
#[test]
fn a_small_graph_has_known_counts() {
    let _alone = alone();
    let device = device().inner();
    let matrix = Tensor::<2>::ones([8, 8], &device);
    let graph = || drop(matrix.clone().exp().add_scalar(1.0).into_data());
    let first = counts(&device, graph);
    assert_eq!(first.total_launches(), 1, "{first:?}");
    let twice = counts(&device, || {
        graph();
        graph();
    });
    assert_eq!(twice.total_launches(), 2, "{twice:?}");
    assert_eq!(twice.launches_of("ElemwiseFuse"), 2, "{twice:?}");
    assert_eq!(twice.new_kernels(&first), 0, "{twice:?}");
    assert_eq!((twice.uploads, twice.uploaded_bytes), (0, 0));
    // 64 values of 4 bytes are read and as many written. The exponential itself is never in memory.
    assert_eq!((first.moved_bytes, twice.moved_bytes), (512, 1024));
    assert_eq!(twice.moved_by_kernel["ElemwiseFuse"], 1024);
    assert_eq!(first.waits, 0);
    let reads = counts(&device, || {
        read(matrix.clone()).unwrap();
        read(matrix.clone().sum()).unwrap();
    });
    assert_eq!(reads.waits, 2, "{reads:?}");
    assert_eq!(reads.downloaded_bytes, 64 * 4 + 4, "{reads:?}");
    let data = TensorData::new(vec![1.0_f32; 6], [6]);
    let upload = counts(&device, || drop(Tensor::<1>::from_data(data, &device)));
    assert_eq!((upload.uploads, upload.uploaded_bytes), (1, 24));
}

/// One launch in the forward pass and two in the backward pass, of either form of the kernels.
fn assert_three_of_attention(launches: &DeviceCounts) {
    for kernels in [
        ["AttentionForward", "AttentionForwardByRow"].as_slice(),
        &["AttentionRowSums"],
        &["AttentionGradients", "AttentionGradientsByRow"],
    ] {
        let found = kernels.iter().map(|kernel| launches.launches_of(kernel));
        assert_eq!(found.sum::<u64>(), 1, "{kernels:?}: {launches:?}");
    }
}

/// All sequences and heads are one launch in the forward pass and two in the backward pass, which reads what the forward
/// pass has left.
#[test]
fn attention_is_three_launches() {
    let _alone = alone();
    let device = device();
    let module: Dropout = DropoutConfig::new(0.1).init();
    let offsets = SequenceOffsets::from_lengths(&[5, 5, 1, 40, 3]).unwrap();
    let saved = ActivationDtype::F32;
    let dy = random([54, 12], &device);
    let [query, key, value] = [(); 3].map(|()| tracked([54, 12], &device));
    let inputs = || [query.clone(), key.clone(), value.clone()];
    let separate = counts(&device, || {
        let y = segment_attention(inputs(), &offsets, AttentionForm::full(3), &module, saved);
        differentiate(y, dy.clone(), &query);
    });
    let fused = tracked([54, 36], &device);
    let side_by_side = counts(&device, || {
        let y = fused_segment_attention(fused.clone(), &offsets, 3, true, &module, saved);
        differentiate(y, dy.clone(), &fused);
    });
    for launches in [separate, side_by_side] {
        assert_three_of_attention(&launches);
    }
}

/// Also where the query's heads share those of key and value, and where a token sees only the last ones.
#[test]
fn attention_with_shared_heads_and_a_window_is_three_launches() {
    let _alone = alone();
    let device = device();
    let module: Dropout = DropoutConfig::new(0.1).init();
    let offsets = SequenceOffsets::from_lengths(&[5, 1, 40]).unwrap();
    let (query, dy) = (tracked([46, 24], &device), random([46, 24], &device));
    let [key, value] = [(); 2].map(|()| tracked([46, 8], &device));
    let form = AttentionForm {
        window: Some(7),
        ..AttentionForm::causal(6)
    };
    let launches = counts(&device, || {
        let inputs = [query.clone(), key.clone(), value.clone()];
        let y = segment_attention(inputs, &offsets, form, &module, ActivationDtype::F32);
        differentiate(y, dy.clone(), &query);
    });
    assert_three_of_attention(&launches);
}

#[test]
fn attention_over_a_cache_is_one_launch() {
    let _alone = alone();
    let device = device().inner();
    let contexts = Contexts::new([&[0u32, 3][..], &[1], &[2, 3, 4, 5]]);
    let query = random([3, 8], &device);
    for width in [8, 4] {
        let cache = [(); 2].map(|()| random([6, width], &device));
        let launches = counts(&device, || {
            cached_attention(query.clone(), cache.clone(), &contexts, 2).into_data();
        });
        assert_eq!(
            launches.launches_of("CachedAttentionKernel"),
            1,
            "{launches:?}"
        );
    }
}

#[test]
fn rms_normalisation_is_one_launch_in_each_pass() {
    let _alone = alone();
    let device = device();
    let (x, dy) = (tracked([6, 64], &device), random([6, 64], &device));
    let gamma = Tensor::<1>::random([64], Distribution::Default, &device);
    let launches = counts(&device, || {
        differentiate(rms_norm(x.clone(), gamma.clone(), 1e-5), dy, &x);
    });
    for kernel in ["RmsNormalizeRowsKernel", "RmsNormalizeRowsBackwardKernel"] {
        assert_eq!(launches.launches_of(kernel), 1, "{kernel}: {launches:?}");
    }
}

#[test]
fn rotation_is_one_launch_in_each_pass() {
    let _alone = alone();
    let device = device();
    let (x, dy) = (tracked([6, 48], &device), random([6, 48], &device));
    let [cos, sin] = [(); 2].map(|()| random([6, 8], &device.clone().inner()));
    let launches = counts(&device, || {
        differentiate(rotate_heads(x.clone(), cos.clone(), sin.clone()), dy, &x);
    });
    assert_eq!(launches.launches_of("RotateHeadsKernel"), 2, "{launches:?}");
}

/// A weight in less precision is read as it is kept, and never made into one of 32-bit floats.
#[test]
fn weights_in_words_are_multiplied_in_one_launch_in_each_pass() {
    let _alone = alone();
    let device = device();
    if !capabilities(&device).unpacks_words {
        return;
    }
    // The words of a weight of 8 by 12, and the scales of integers: one for each output.
    for (dtype, weight) in [(BaseDtype::Bf16, 192), (BaseDtype::Int8, 96 + 48)] {
        let layer = LinearConfig::new(8, 12).init(&device).no_grad();
        let layer = dtype.keep(layer).unwrap();
        let (x, dy) = (tracked([6, 8], &device), random([6, 12], &device));
        let products = |counts: &DeviceCounts| {
            let kernels = ["PackedBlocksKernel", "PackedTilesKernel"];
            kernels
                .map(|kernel| counts.launches_of(kernel))
                .iter()
                .sum::<u64>()
        };
        let both = counts(&device, || {
            differentiate(adapted_linear(&layer, x.clone()), dy, &x);
        });
        assert_eq!(products(&both), 2, "{dtype}: {both:?}");

        let forward = counts(&device, || {
            adapted_linear(&layer, x.clone()).into_data();
        });
        assert_eq!(products(&forward), 1, "{dtype}: {forward:?}");
        assert_eq!(forward.total_launches(), 1, "{dtype}: {forward:?}");
        // The bias, the input and the output are of 4 bytes a value.
        let others = 4 * (12 + 6 * 8 + 6 * 12);
        assert_eq!(forward.moved_bytes, weight + others, "{dtype}: {forward:?}");
    }
}

#[test]
fn rows_of_a_table_in_words_are_unpacked_in_one_launch() {
    let _alone = alone();
    let device = device().inner();
    if !capabilities(&device).unpacks_words {
        return;
    }
    let table = BaseDtype::Bf16
        .keep(EmbeddingConfig::new(7, 8).init(&device))
        .unwrap();
    let ids = Tensor::<1, Int>::from_data([3i64, 0, 6], &device);
    let launches = counts(&device, || {
        adapted_embedding(&table, ids.clone()).into_data();
    });
    assert_eq!(launches.launches_of("PackedRowsKernel"), 1, "{launches:?}");
    assert_eq!(launches.total_launches(), 1, "{launches:?}");
}

#[test]
fn five_tensors_are_squared_and_added_up_in_one_launch() {
    let _alone = alone();
    let device = device().inner();
    let tensors: Vec<_> = (1..=11).map(|rows| random([rows, 8], &device)).collect();
    let launches = counts(&device, || {
        let mut norm = SquaredNorm::default();
        tensors.iter().for_each(|tensor| norm.add(tensor.clone()));
        norm.finish().unwrap().into_data();
    });
    assert_eq!(
        launches.launches_of("SumOfSquaresKernel"),
        3,
        "{launches:?}"
    );
    assert_eq!(launches.total_launches(), 3, "{launches:?}");
}

/// Dropout, the residual connection and the norm after it.
#[test]
fn a_residual_connection_and_its_norm_are_one_launch_in_each_pass() {
    let _alone = alone();
    let device = device();
    let module: Dropout = DropoutConfig::new(0.3).init();
    let [x, residual] = [(); 2].map(|()| tracked([6, 64], &device));
    let dy = random([6, 64], &device);
    let gamma = Tensor::<1>::random([64], Distribution::Default, &device);
    let beta = Tensor::<1>::random([64], Distribution::Default, &device);
    let launches = counts(&device, || {
        let inputs = [x.clone(), residual.clone()];
        let y = residual_layer_norm(inputs, &module, gamma.clone(), beta.clone(), 1e-5);
        differentiate(y, dy, &x);
    });
    for kernel in [
        "AddAndNormalizeRowsKernel",
        "AddAndNormalizeRowsBackwardKernel",
    ] {
        assert_eq!(launches.launches_of(kernel), 1, "{kernel}: {launches:?}");
    }
    for kernel in [
        "DropoutKernel",
        "NormalizeRowsKernel",
        "NormalizeRowsBackwardKernel",
    ] {
        assert_eq!(launches.launches_of(kernel), 0, "{kernel}: {launches:?}");
    }
}
