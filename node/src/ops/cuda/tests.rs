//! Every operation on a GPU against the same on the CPU. Where there is no GPU they say so, and skip.

use crate::{
    device::DeviceChoice,
    ops::{
        Activation, Attention, FeedForward, LayerNorm, Linear, RmsNorm, Rotary, Vocabulary, gelu, gelu_tanh, silu,
        softmax, tests::noise,
    },
};
use candle_core::{DType, Device, Tensor, Var};
use std::sync::Arc;

/// The GPU; none where there is none.
fn gpu() -> Option<Device> {
    match DeviceChoice::Cuda(0).open() {
        Ok(device) => Some(device),
        Err(error) => {
            println!("skipped: no CUDA device ({error})");
            None
        }
    }
}

/// Compares values and gradients of an operation, made by `make` for a device and a type, on inputs of these shapes.
fn check(shapes: &[&[usize]], make: impl Fn(&Device, DType) -> Box<dyn Fn(&[Var]) -> Tensor>) {
    let Some(gpu) = gpu() else { return };
    // A bf16 has 8 bits; what is compared are sums of a few dozen of them.
    for (dtype, most) in [(DType::F32, 1e-4), (DType::BF16, 5e-2)] {
        let run = |device: &Device, dtype: DType| {
            let inputs = shapes.iter().zip(5..).map(|(shape, seed)| {
                // The CPU gets the same rounded values.
                let input = noise(shape, seed).to_dtype(dtype).unwrap();
                let dtype = if device.is_cuda() { dtype } else { DType::F32 };
                Var::from_tensor(&input.to_dtype(dtype).unwrap().to_device(device).unwrap()).unwrap()
            });
            let inputs: Vec<Var> = inputs.collect();
            let y = make(device, if device.is_cuda() { dtype } else { DType::F32 })(&inputs);
            let outer = noise(y.dims(), 3).to_dtype(dtype).unwrap().to_dtype(y.dtype()).unwrap();
            let gradients = (&y * outer.to_device(device).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
            let gradients = inputs.iter().map(|input| gradients.get(input).unwrap().clone());
            [y.detach()].into_iter().chain(gradients).map(values).collect::<Vec<_>>()
        };
        for (part, (ours, theirs)) in run(&gpu, dtype).iter().zip(run(&Device::Cpu, dtype)).enumerate() {
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(theirs) {
                let off = (ours - theirs).abs();
                assert!(off <= most * (1.0 + theirs.abs()), "part {part}, {dtype:?}: {ours} is not {theirs}");
            }
        }
    }
}

fn values(tensor: Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Repeatable weights on a device.
fn weight(shape: &[usize], seed: u64, device: &Device, dtype: DType) -> Tensor {
    noise(shape, seed).to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap().to_device(device).unwrap()
}

#[test]
fn functions_of_single_values() {
    for op in [silu, gelu, gelu_tanh] {
        check(&[&[3, 700]], |_, _| Box::new(move |x| op(&x[0]).unwrap()));
    }
}

#[test]
fn views_are_computed_as_what_they_show() {
    let view = |x: &Tensor| x.narrow(0, 1, 2).unwrap().t().unwrap();
    check(&[&[4, 30]], |_, _| Box::new(move |x| silu(&view(&x[0])).unwrap()));
}

#[test]
fn softmax_over_rows() {
    for width in [1, 5, 700] {
        check(&[&[2, 3, width]], |_, _| Box::new(|x| softmax(&x[0]).unwrap()));
    }
}

#[test]
fn norms() {
    for width in [7, 768] {
        check(&[&[2, 3, width]], |_, _| Box::new(|x| LayerNorm::plain().forward(&x[0]).unwrap()));
        check(&[&[2, 3, width]], |device, dtype| {
            let [weight, bias] = [1, 2].map(|seed| weight(&[width], seed, device, dtype));
            let norm = LayerNorm::affine(weight, bias, 1e-6).unwrap();
            Box::new(move |x| norm.forward(&x[0]).unwrap())
        });
        check(&[&[2, 3, width]], |device, dtype| {
            let norm = RmsNorm::around_one(&weight(&[width], 1, device, dtype), 1e-6).unwrap();
            Box::new(move |x| norm.forward(&x[0]).unwrap())
        });
    }
}

#[test]
fn rotation() {
    for (first, size) in [(0, 6), (5, 10)] {
        let rotary = Rotary::new([1.0, 0.3, 0.01]);
        check(&[&[2, 9, 2, size]], |_, _| {
            let rotary = rotary.clone();
            Box::new(move |x| rotary.forward(&x[0], first).unwrap())
        });
    }
}

#[test]
fn frozen_maps() {
    for with_bias in [false, true] {
        check(&[&[2, 3, 40]], |device, dtype| {
            let bias = with_bias.then(|| weight(&[50], 2, device, dtype));
            let map = Linear::new(weight(&[50, 40], 1, device, dtype), bias).unwrap();
            Box::new(move |x| map.forward(&x[0]).unwrap())
        });
    }
}

#[test]
fn attention() {
    let all = Attention { scale: 0.35, ..Attention::default() };
    let causal = Attention { causal: true, ..all };
    let capped = Attention { window: Some(3), softcap: Some(0.8), ..causal };
    // Options, lengths, heads and queries, groups and keys.
    for (options, lengths, (heads, queries), (groups, keys)) in [
        (all, None, (2, 5), (2, 5)),
        (all, Some(vec![3, 7]), (4, 7), (2, 7)),
        (causal, None, (4, 300), (2, 300)),
        (causal, Some(vec![2, 9]), (2, 9), (1, 9)),
        (causal, None, (2, 2), (2, 9)),
        (capped, None, (4, 40), (2, 40)),
    ] {
        let lengths: Option<Arc<[usize]>> = lengths.map(Into::into);
        let key: &[usize] = &[2, keys, groups, 8];
        check(&[&[2, queries, heads, 8], key, key], |_, _| {
            let lengths = lengths.clone();
            Box::new(move |x| options.forward(&x[0], &x[1], &x[2], lengths.as_ref()).unwrap())
        });
    }
}

#[test]
fn a_query_that_sees_nothing_gets_zeros() {
    let Some(gpu) = gpu() else { return };
    let window = Attention { causal: true, window: Some(1), ..Attention::default() };
    let x = noise(&[1, 3, 1, 4], 1).to_device(&gpu).unwrap();
    let y = values(window.forward(&x, &x, &x, Some(&[1].into())).unwrap());
    assert_eq!(y[8..], [0.0; 4]);
    assert_ne!(y[..4], [0.0; 4]);
}

#[test]
fn other_types_are_refused() {
    let Some(gpu) = gpu() else { return };
    let x = noise(&[2, 3], 1).to_dtype(DType::F16).unwrap().to_device(&gpu).unwrap();
    assert!(silu(&x).unwrap_err().to_string().contains("f32 and bf16"));
}

#[test]
fn feed_forward_layers() {
    for gated in [false, true] {
        check(&[&[2, 3, 40]], |device, dtype| {
            let map = |outputs: usize, inputs: usize, seed| {
                Linear::new(weight(&[outputs, inputs], seed, device, dtype), None).unwrap()
            };
            let (gate, widen, narrow) = (gated.then(|| map(50, 40, 1)), map(50, 40, 2), map(40, 50, 3));
            let layer = FeedForward { gate, widen, activation: Activation::Silu, narrow };
            Box::new(move |x| layer.forward(&x[0]).unwrap())
        });
    }
}

#[test]
fn losses_of_tokens() {
    // Places read by the head, codes read by the readout, readout and bias; all but the first stay f32.
    let shapes: [&[usize]; 4] = [&[6, 40], &[6, 5], &[5, 30], &[30]];
    check(&shapes, |device, dtype| {
        let head = weight(&[30, 40], 1, device, dtype);
        Box::new(move |x| {
            let [z, readout, bias] = [1, 2, 3].map(|at| x[at].to_dtype(DType::F32).unwrap());
            let vocabulary = Vocabulary { head: &head, softcap: Some(3.0), weight: &readout, bias: &bias };
            vocabulary.loss(&x[0], &z, &[3, 0, 29, 7, 7, 12]).unwrap()
        })
    });
}
