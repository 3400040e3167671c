//! What a training step spends its time in, forward and backward, against the same from the tensor library's own
//! operations: `cargo bench -p heterotune --bench ops`. Sizes are those of a MiniLM with 32 texts of 64 tokens.

use candle_core::{D, Device, Tensor, Var};
use criterion::Criterion;
use heterotune::ops::{Activation, Attention, FeedForward, Inner, LayerNorm, Linear, RmsNorm, Sublayer, Vocabulary};
use std::hint::black_box;

const ROWS: usize = 2_048;
const WIDTH: usize = 384;
const INNER: usize = 1_536;
const TOKENS: usize = 30_522;

/// Repeatable values in [-1, 1).
fn noise(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>() as u64;
    let value = |i: u64| ((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32) / (1 << 23) as f32 - 1.0;
    Tensor::from_vec((0..count).map(value).collect(), shape, &Device::Cpu).expect("as many values as the shape says")
}

/// Times a function of an input and the way back from the sum of its values.
fn time(
    criterion: &mut Criterion,
    name: &str,
    who: &str,
    shape: &[usize],
    run: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) {
    let input = Var::from_tensor(&noise(shape)).expect("a variable of any tensor");
    criterion.benchmark_group(name).bench_function(who, |bencher| {
        bencher.iter(|| {
            let store =
                run(input.as_tensor()).and_then(|y| y.sum_all()?.backward()).expect("an operation with a gradient");
            black_box(store.get(&input).is_some())
        });
    });
}

fn linear(criterion: &mut Criterion) {
    let (weight, bias) = (noise(&[INNER, WIDTH]), noise(&[INNER]));
    let map = Linear::new(weight.clone(), Some(bias.clone())).expect("shapes that fit");
    time(criterion, "linear", "ours", &[ROWS, WIDTH], |x| map.forward(x));
    time(criterion, "linear", "library", &[ROWS, WIDTH], |x| x.matmul(&weight.t()?)?.broadcast_add(&bias));
}

fn feed_forward(criterion: &mut Criterion) {
    let (wide, narrow) = (noise(&[INNER, WIDTH]), noise(&[WIDTH, INNER]));
    let map = |weight: &Tensor| Linear::new(weight.clone(), None).expect("a matrix");
    let layer = FeedForward { gate: None, widen: map(&wide), activation: Activation::Gelu, narrow: map(&narrow) };
    let layer = Sublayer::new(Inner::Feed(layer));
    time(criterion, "feed-forward", "ours", &[1, ROWS, WIDTH], |x| layer.forward(x, None));
    time(criterion, "feed-forward", "library", &[ROWS, WIDTH], |x| {
        x + x.matmul(&wide.t()?)?.gelu_erf()?.matmul(&narrow.t()?)?
    });
}

fn attention(criterion: &mut Criterion) {
    let shape = [32, 64, 12, 32];
    let (key, value) = (noise(&shape), noise(&shape));
    let ours = Attention { scale: 0.18, ..Attention::default() };
    time(criterion, "attention", "ours", &shape, |query| ours.forward(query, &key, &value, None));
    time(criterion, "attention", "library", &shape, |query| {
        let by_head = |x: &Tensor| x.transpose(1, 2)?.contiguous();
        let scores = (by_head(query)?.matmul(&by_head(&key)?.t()?)? * 0.18)?;
        candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&by_head(&value)?)?.transpose(1, 2)
    });
}

fn norms(criterion: &mut Criterion) {
    let (weight, bias) = (noise(&[WIDTH]), noise(&[WIDTH]));
    let layer = LayerNorm::affine(weight.clone(), bias.clone(), 1e-5).expect("shapes that fit");
    let rms = RmsNorm::new(weight.clone(), 1e-5).expect("a vector");
    time(criterion, "layer-norm", "ours", &[ROWS, WIDTH], |x| layer.forward(x));
    time(criterion, "layer-norm", "library", &[ROWS, WIDTH], |x| {
        candle_nn::ops::layer_norm_slow(x, &weight, &bias, 1e-5)
    });
    time(criterion, "rms-norm", "ours", &[ROWS, WIDTH], |x| rms.forward(x));
    time(criterion, "rms-norm", "library", &[ROWS, WIDTH], |x| candle_nn::ops::rms_norm_slow(x, &weight, 1e-5));
}

fn vocabulary(criterion: &mut Criterion) {
    const PLACES: usize = 512;
    let (head, codes) = (noise(&[TOKENS, WIDTH]), noise(&[PLACES, 64]));
    let (weight, bias) = (noise(&[64, TOKENS]), noise(&[TOKENS]));
    let goals: Vec<u32> = (0..PLACES as u32).map(|place| place * 59).collect();
    let targets = Tensor::new(goals.as_slice(), &Device::Cpu).expect("a list");
    let ours = Vocabulary { head: &head, softcap: None, weight: &weight, bias: &bias };
    time(criterion, "vocabulary", "ours", &[PLACES, WIDTH], |x| ours.loss(x, &codes, &goals));
    time(criterion, "vocabulary", "library", &[PLACES, WIDTH], |x| {
        let logits = (x.matmul(&head.t()?)? + codes.matmul(&weight)?.broadcast_add(&bias)?)?;
        candle_nn::loss::cross_entropy(&logits, &targets)
    });
}

fn main() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for bench in [linear, feed_forward, attention, norms, vocabulary] {
        bench(&mut criterion);
    }
    criterion.final_summary();
}
