//! Does the time of signing tell anything about key or message? A test in the manner of dudect
//! (Reparaz, Balasch, Verbauwhede 2017): two classes in random order, Welch's t over what is left
//! when the slowest are cut off. Takes a while and wants a quiet machine: `make soak` runs it.
use std::time::Instant;

use _native::falcon::{Degree, Signer};
use rand_core::{OsRng, RngCore};

const SAMPLES: usize = 20_000;
/// dudect calls a leak proven above 10; the machine's own noise stays below 5.
const T_MAX: f64 = 10.0;
/// The slowest part of all samples is the scheduler's, not the signer's.
const KEPT: f64 = 0.9;

fn welch(classes: &[Vec<f64>; 2]) -> f64 {
    let [first, second] = classes;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let variance = |values: &[f64]| {
        let centre = mean(values);
        values
            .iter()
            .map(|value| (value - centre).powi(2))
            .sum::<f64>()
            / (values.len() - 1) as f64
    };
    let spread = variance(first) / first.len() as f64 + variance(second) / second.len() as f64;
    (mean(first) - mean(second)) / spread.sqrt()
}

/// Seconds that `sign` took for the class it was told, in random order.
fn measure(mut sign: impl FnMut(usize)) -> Vec<(f64, usize)> {
    (0..SAMPLES)
        .map(|_| {
            let class = (OsRng.next_u32() & 1) as usize;
            let began = Instant::now();
            sign(class);
            (began.elapsed().as_secs_f64(), class)
        })
        .collect()
}

/// Welch's t of the two classes, without the slowest samples of both.
fn compare(mut samples: Vec<(f64, usize)>) -> f64 {
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    samples.truncate((samples.len() as f64 * KEPT) as usize);
    let mut classes = [Vec::new(), Vec::new()];
    for (took, class) in samples {
        classes[class].push(took);
    }
    welch(&classes)
}

fn random_message() -> [u8; 64] {
    let mut message = [0; 64];
    OsRng.fill_bytes(&mut message);
    message
}

#[test]
#[ignore = "takes a minute and a quiet machine; make soak runs it"]
fn the_time_of_signing_does_not_depend_on_the_message() {
    let signer = Signer::generate(Degree::Falcon512).unwrap();
    let messages: Vec<_> = (0..SAMPLES).map(|_| random_message()).collect();
    let (fixed, mut next) = ([0; 64], messages.iter().cycle());
    let t = compare(measure(|class| {
        let message = next.next().unwrap();
        let chosen = if class == 0 { &fixed } else { message };
        signer.sign(chosen).unwrap();
    }));
    println!("fixed against random message: t = {t:.2}");
    assert!(t.abs() < T_MAX, "t = {t:.2}");
}

#[test]
#[ignore = "takes a minute and a quiet machine; make soak runs it"]
fn the_time_of_signing_does_not_depend_on_the_key() {
    let signers = [(); 2].map(|()| Signer::generate(Degree::Falcon512).unwrap());
    let message = random_message();
    let t = compare(measure(|class| {
        signers[class].sign(&message).unwrap();
    }));
    println!("one key against another: t = {t:.2}");
    assert!(t.abs() < T_MAX, "t = {t:.2}");
}

#[test]
#[ignore = "takes a quiet machine; make soak runs it"]
fn a_leak_of_this_machine_would_be_seen() {
    let busy = |rounds: u32| (0..rounds).fold(1u64, |x, _| std::hint::black_box(x.wrapping_mul(3)));
    let t = compare(measure(|class| {
        std::hint::black_box(busy(if class == 0 { 2_000 } else { 4_000 }));
    }));
    assert!(t.abs() > T_MAX, "t = {t:.2}");
}

/// Times as a scheduler gives them: mostly about 200 us, one in sixteen much more, of which class 1
/// takes `slower` parts of a whole longer. Always the same, so that no machine's load decides.
fn made_up_times(slower: f64) -> Vec<(f64, usize)> {
    let mut state = 4u64;
    let mut uniform = move || {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 32) as f64 / f64::from(u32::MAX)
    };
    (0..SAMPLES)
        .map(|_| {
            let class = usize::from(uniform() < 0.5);
            let noise: f64 = (0..4).map(|_| uniform()).sum::<f64>() * 5e-6;
            let preempted = if uniform() < 1.0 / 16.0 {
                uniform() * 4e-3
            } else {
                0.0
            };
            (
                200e-6 * (1.0 + slower * class as f64) + noise + preempted,
                class,
            )
        })
        .collect()
}

#[test]
fn a_leak_of_one_part_in_a_hundred_would_be_seen() {
    let t = compare(made_up_times(0.01));
    assert!(t.abs() > T_MAX, "t = {t:.2}");
}

#[test]
fn no_leak_is_seen_where_there_is_none() {
    let t = compare(made_up_times(0.0));
    assert!(t.abs() < T_MAX / 2.0, "t = {t:.2}");
}
