//! `heterotune generate`: text from a language model, token by token.

use super::using::Model;
use crate::{backbone::Past, train::Predictor};
use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::Write as _;

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    model: Model,
    /// What to go on from.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Put the prompt as a user's message into the model's chat template.
    #[arg(long)]
    chat: bool,
    /// The most tokens to add.
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    /// How freely to choose: 0 takes the likeliest token each time, 1 draws by the model's own probabilities.
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    temperature: f64,
    /// Draw only from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    top_p: f64,
    /// Seeds the draws.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print {"prompt": .., "text": .., "tokens": n} at the end, instead of the text as it comes.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    if !(0.0..f64::INFINITY).contains(&flags.temperature) || !(0.0..=1.0).contains(&flags.top_p) {
        bail!("--temperature must be 0 or more, and --top-p from 0 to 1");
    }
    let model = flags.model.open()?;
    let mut text = String::new();
    let made = generate(&model, flags, |piece| {
        text.push_str(piece);
        if !flags.json {
            print!("{piece}");
            std::io::stdout().flush()?;
        }
        Ok(())
    })?;
    match flags.json {
        true => println!("{}", serde_json::json!({"prompt": flags.prompt, "text": text, "tokens": made})),
        false => println!(),
    }
    Ok(())
}

/// Gives the text piece by piece, and how many tokens it took.
fn generate(model: &Predictor, flags: &Flags, mut say: impl FnMut(&str) -> Result<()>) -> Result<usize> {
    let (Some(tokenizer), Some(template)) = (model.tokenizer(), model.template()) else {
        bail!("this backbone takes images; text comes from a language model");
    };
    if !model.labels().is_empty() {
        bail!("this model tells labels apart; text comes from a language model");
    }
    let refuse = |problem: String| anyhow!("the prompt can't be used: {problem}");
    let mut ids = if flags.chat {
        let message = serde_json::json!({"role": "user", "content": flags.prompt});
        tokenizer.encode(&template.render(&[message], true).map_err(refuse)?, false).map_err(refuse)?
    } else {
        let mut ids: Vec<u32> = tokenizer.bos().into_iter().collect();
        ids.extend(tokenizer.encode(&flags.prompt, false).map_err(refuse)?);
        ids
    };
    if ids.is_empty() {
        bail!("the prompt has no tokens; give --prompt some text");
    }
    let mut rng = ChaCha8Rng::seed_from_u64(flags.seed);
    let (mut past, mut decoding, mut made) = (Past::default(), tokenizer.decode_stream(), 0);
    while made < flags.tokens {
        let logits = model.next(&ids, &mut past)?;
        let id = choose(&logits, flags.temperature, flags.top_p, &mut rng).context("the model says nothing")?;
        if tokenizer.ends(id) {
            break;
        }
        made += 1;
        say(&decoding.push(id).map_err(|problem| anyhow!(problem))?)?;
        ids = vec![id];
    }
    Ok(made)
}

/// The next token: among the likeliest that together have the probability `top_p`, drawn at the temperature.
fn choose(logits: &[f32], temperature: f64, top_p: f64, rng: &mut ChaCha8Rng) -> Option<u32> {
    let mut ranked: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|value| f64::from(*value))).collect();
    ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let (best, most) = *ranked.first()?;
    if temperature == 0.0 {
        return Some(best);
    }
    ranked.iter_mut().for_each(|(_, value)| *value = ((*value - most) / temperature).exp());
    let sum: f64 = ranked.iter().map(|(_, weight)| weight).sum();
    let mut reached = 0.0;
    let within = ranked.iter().take_while(|(_, weight)| {
        let before = reached;
        reached += weight / sum;
        before < top_p
    });
    let within: Vec<&(u32, f64)> = within.collect();
    let total: f64 = within.iter().map(|(_, weight)| weight).sum();
    let mut point = rng.random::<f64>() * total;
    let passed = |(_, weight): &&&(u32, f64)| {
        point -= weight;
        point < 0.0
    };
    Some(within.iter().find(passed).map_or(best, |(id, _)| *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_chosen_by_their_probabilities() {
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY, 5f32.ln()];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = |temperature, top_p| {
            let mut counts = [0; 4];
            (0..4_000).for_each(|_| counts[choose(&logits, temperature, top_p, &mut rng).unwrap() as usize] += 1);
            counts
        };
        assert_eq!(counts(0.0, 1.0), [0, 0, 0, 4_000]);
        let [a, b, c, d] = counts(1.0, 1.0);
        assert!((a - 500i32).abs() < 100 && (b - 1_000i32).abs() < 120 && c == 0 && (d - 2_500i32).abs() < 150);
        // The two likeliest have 7 of 8.
        let [a, b, _, d] = counts(1.0, 0.8);
        assert!(a == 0 && b > 0 && d > 2 * b, "{b} {d}");
        assert_eq!(counts(1.0, 0.0)[3], 4_000);
        assert!(counts(0.1, 1.0)[3] > 3_950);
        assert_eq!(choose(&[], 1.0, 1.0, &mut rng), None);
    }
}
