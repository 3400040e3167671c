//! The one operation against many.

use super::*;
use crate::ops::{
    Activation, Attention, Linear, Rotary,
    tests::{agree, noise},
};
use candle_core::Var;

const WIDTH: usize = 6;

fn map(outputs: usize, inputs: usize, seed: u64) -> Linear {
    Linear::new(noise(&[outputs, inputs], seed), Some(noise(&[outputs], seed + 1))).unwrap()
}

fn feed(activation: Activation, gated: bool) -> Inner {
    let gate = gated.then(|| map(7, WIDTH, 3));
    Inner::Feed(FeedForward { gate, widen: map(7, WIDTH, 5), activation, narrow: map(WIDTH, 7, 7) })
}

fn attention(groups: usize, turns: bool) -> Inner {
    let norm = |seed| RmsNorm::new(noise(&[4], seed), 1e-6).unwrap();
    Inner::Attention(SelfAttention {
        heads: 2,
        groups,
        size: 4,
        query: map(8, WIDTH, 11),
        key: map(4 * groups, WIDTH, 13),
        value: map(4 * groups, WIDTH, 15),
        norms: turns.then(|| (norm(17), norm(18))),
        rotary: turns.then(|| Rotary::new([1.0, 0.1])),
        attention: Attention { scale: 0.5, causal: turns, ..Attention::default() },
        output: map(WIDTH, 8, 19),
    })
}

fn layer_norm(seed: u64) -> Norm {
    Norm::Layer(LayerNorm::affine(noise(&[WIDTH], seed), noise(&[WIDTH], seed + 1), 1e-6).unwrap())
}

fn rms_norm(seed: u64) -> Norm {
    Norm::Rms(RmsNorm::new(noise(&[WIDTH], seed), 1e-6).unwrap())
}

fn plain(layer: &Sublayer, x: &Tensor, lengths: Option<&Arc<[usize]>>) -> Tensor {
    let inner = |x: &Tensor| match &layer.inner {
        Inner::Attention(layer) => layer.forward(x, lengths),
        Inner::Feed(layer) => layer.forward(x),
    };
    layer.around(x, inner).unwrap()
}

#[test]
fn it_computes_and_differentiates_like_its_plain_twin() {
    use Activation::{Gelu, GeluTanh, Relu, Silu};
    let feeds = [(Gelu, false), (GeluTanh, true), (Silu, true), (Silu, false), (Relu, true)];
    let attentions = [(1, true), (2, false), (2, true)];
    let inners = feeds.map(|(activation, gated)| feed(activation, gated)).into_iter();
    for inner in inners.chain(attentions.map(|(groups, turns)| attention(groups, turns))) {
        let bare = Sublayer::new(inner);
        let pre = Sublayer { before: Some(layer_norm(21)), scale: Some(noise(&[WIDTH], 29)), ..bare.clone() };
        let post = Sublayer { behind: Some(layer_norm(23)), ..bare.clone() };
        let both = Sublayer { before: Some(rms_norm(25)), after: Some(rms_norm(27)), ..bare.clone() };
        for layer in [bare, pre, post, both] {
            for lengths in [None, Some(Arc::from([3, 2]))] {
                let lengths: Option<&Arc<[usize]>> = lengths.as_ref();
                agree(&[2, 3, WIDTH], |x| layer.forward(x, lengths).unwrap(), |x| plain(&layer, x, lengths));
            }
        }
    }
}

#[test]
fn many_rows_are_as_few() {
    let layer = Sublayer { before: Some(layer_norm(1)), ..Sublayer::new(feed(Activation::Silu, true)) };
    let shape = [3, 1_000, WIDTH];
    let (x, outer) = (Var::from_tensor(&noise(&shape, 1)).unwrap(), noise(&shape, 2));
    let [ours, theirs] = [layer.forward(&x, None).unwrap(), plain(&layer, &x, None)].map(|y| {
        let store = (&y * &outer).unwrap().sum_all().unwrap().backward().unwrap();
        Tensor::cat(&[&y.detach(), store.get(&x).unwrap()], 0).unwrap()
    });
    let worst = |difference: Tensor| difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(worst((ours - theirs).unwrap()) < 1e-4);
    // Without a way back nothing is kept, and the result is the same.
    let again = layer.forward(&x.as_detached_tensor(), None).unwrap();
    assert_eq!(worst((again - layer.forward(&x, None).unwrap()).unwrap()), 0.0);
}

#[test]
fn what_is_trained_gets_a_gradient() {
    let weight = Var::from_tensor(&noise(&[WIDTH], 1)).unwrap();
    let x = Var::from_tensor(&noise(&[1, 2, WIDTH], 2)).unwrap();
    let gets = |layer: &Sublayer| {
        let store = layer.forward(&x, None).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        store.get(&weight).is_some()
    };
    let bare = Sublayer::new(feed(Activation::Gelu, false));
    let norm = || Some(Norm::Rms(RmsNorm::new(weight.as_tensor().clone(), 1e-6).unwrap()));
    assert!(!gets(&bare));
    assert!(gets(&Sublayer { before: norm(), ..bare.clone() }));
    assert!(gets(&Sublayer { after: norm(), ..bare.clone() }));
    assert!(gets(&Sublayer { behind: norm(), ..bare.clone() }));
    assert!(gets(&Sublayer { scale: Some(weight.as_tensor().clone()), ..bare.clone() }));
    let Inner::Attention(inner) = attention(2, true) else { panic!("it is attention") };
    let biased = Linear::new(noise(&[WIDTH, 8], 3), Some(weight.as_tensor().clone())).unwrap();
    assert!(gets(&Sublayer::new(Inner::Attention(SelfAttention { output: biased, ..inner }))));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let bare = Sublayer::new(feed(Activation::Gelu, false));
    assert!(bare.forward(&noise(&[1, 2, WIDTH + 1], 1), None).is_err());
    assert!(bare.forward(&noise(&[2, WIDTH], 1), None).is_err());
    let x = noise(&[1, 2, WIDTH], 1);
    let narrow = Some(Norm::Rms(RmsNorm::new(noise(&[WIDTH - 1], 1), 1e-6).unwrap()));
    assert!(Sublayer { behind: narrow, ..bare.clone() }.forward(&x, None).is_err());
    assert!(Sublayer { scale: Some(noise(&[WIDTH - 1], 1)), ..bare.clone() }.forward(&x, None).is_err());
    assert!(bare.forward(&x, None).is_ok());
}
