//! Against the library's operations.

use super::*;
use crate::ops::tests::{check, noise};
use candle_core::{D, Device};

/// The same from the library's operations.
fn twin(options: Attention, lengths: Option<&[usize]>, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
    let [query, key, value] = [query, key, value].map(|x| x.transpose(1, 2).unwrap().contiguous().unwrap());
    let (inputs, heads, queries, width) = query.dims4().unwrap();
    let (_, groups, keys, _) = key.dims4().unwrap();
    let spread = |x: &Tensor| {
        let x = x.unsqueeze(2).unwrap().broadcast_as((inputs, groups, heads / groups, keys, width)).unwrap();
        x.reshape((inputs, heads, keys, width)).unwrap()
    };
    let mut scores = query.matmul(&spread(&key).t().unwrap()).unwrap().affine(f64::from(options.scale), 0.0).unwrap();
    if let Some(cap) = options.softcap.map(f64::from) {
        scores = ((scores / cap).unwrap().tanh().unwrap() * cap).unwrap();
    }
    let mut mask = Vec::new();
    for input in 0..inputs {
        for query in 0..queries {
            let place = keys - queries + query;
            mask.extend((0..keys).map(|key| {
                let hidden = key >= lengths.map_or(keys, |lengths| lengths[input])
                    || (options.causal && key > place)
                    || (options.causal && options.window.is_some_and(|window| key + window <= place));
                if hidden { -1e9f32 } else { 0.0 }
            }));
        }
    }
    let mask = Tensor::from_vec(mask, (inputs, 1, queries, keys), &Device::Cpu).unwrap();
    let weights = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), D::Minus1).unwrap();
    weights.matmul(&spread(&value)).unwrap().transpose(1, 2).unwrap()
}

/// Checks the gradients of queries, keys and values one after the other.
fn check_all(options: Attention, lengths: Option<&[usize]>, query: &[usize], key: &[usize]) {
    let arc = lengths.map(Arc::from);
    let ours = |q: &Tensor, k: &Tensor, v: &Tensor| options.forward(q, k, v, arc.as_ref()).unwrap();
    let plain = |q: &Tensor, k: &Tensor, v: &Tensor| twin(options, lengths, q, k, v);
    let (q, k, v) = (noise(query, 5), noise(key, 6), noise(key, 7));
    check(query, |q| ours(q, &k, &v), |q| plain(q, &k, &v));
    check(key, |k| ours(&q, k, &v), |k| plain(&q, k, &v));
    check(key, |v| ours(&q, &k, v), |v| plain(&q, &k, v));
}

#[test]
fn it_attends_and_differentiates_like_its_plain_twin() {
    let all = Attention { scale: 0.7, ..Attention::default() };
    let causal = Attention { causal: true, ..all };
    check_all(all, None, &[2, 3, 2, 4], &[2, 3, 2, 4]);
    check_all(all, Some(&[3, 1]), &[2, 3, 2, 4], &[2, 3, 1, 4]);
    check_all(causal, None, &[1, 5, 4, 4], &[1, 5, 2, 4]);
    check_all(causal, Some(&[2, 4]), &[2, 4, 2, 4], &[2, 4, 2, 4]);
    check_all(causal, None, &[1, 2, 2, 4], &[1, 5, 2, 4]);
    check_all(Attention { window: Some(2), ..causal }, None, &[1, 5, 2, 4], &[1, 5, 1, 4]);
    check_all(Attention { softcap: Some(0.8), window: Some(3), ..causal }, None, &[1, 5, 2, 4], &[1, 5, 1, 4]);
}

#[test]
fn many_queries_are_as_few() {
    let causal = Attention { scale: 0.5, causal: true, window: Some(70), softcap: None };
    let (query, key, value) = (noise(&[1, 300, 2, 8], 1), noise(&[1, 300, 1, 8], 2), noise(&[1, 300, 1, 8], 3));
    let whole = causal.forward(&query, &key, &value, None).unwrap();
    let difference = (whole - twin(causal, None, &query, &key, &value)).unwrap().abs().unwrap();
    assert!(difference.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-5);
}

#[test]
fn a_query_that_sees_nothing_gets_zeros() {
    let window = Attention { causal: true, window: Some(1), ..Attention::default() };
    let x = noise(&[1, 3, 1, 4], 1);
    let y = window.forward(&x, &x, &x, Some(&[1].into())).unwrap();
    let rows: Vec<Vec<f32>> = y.squeeze(0).unwrap().squeeze(1).unwrap().to_vec2().unwrap();
    assert_eq!(rows[2], [0.0; 4]);
    assert_ne!(rows[0], [0.0; 4]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let all = Attention::default();
    let refused = |query: &[usize], key: &[usize], value: &[usize]| {
        all.forward(&noise(query, 1), &noise(key, 2), &noise(value, 3), None).is_err()
    };
    assert!(refused(&[1, 2, 3, 4], &[1, 2, 2, 4], &[1, 2, 2, 4]));
    assert!(refused(&[1, 2, 2, 4], &[1, 2, 2, 3], &[1, 2, 2, 3]));
    assert!(refused(&[1, 2, 2, 4], &[1, 2, 2, 4], &[1, 3, 2, 4]));
    assert!(refused(&[1, 2, 2, 4], &[2, 2, 2, 4], &[2, 2, 2, 4]));
}
