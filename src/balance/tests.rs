//! Distributions, with numbers. All randomness is seeded: what passes once passes always.

use super::random::SplitMix;
use super::*;

const KINDS: [Kind; 4] = [Kind::RoundRobin, Kind::LeastRequests, Kind::PeakEwma, Kind::Hash];

fn endpoint(index: usize, weight: u32) -> Candidate {
    Candidate {
        weight,
        in_flight: 0,
        ewma_ns: 1_000_000,
        backup: false,
        available: true,
        key: random::mix(index as u64 + 1),
        ramp_permille: RAMP_FULL,
    }
}

fn endpoints(weights: &[u32]) -> Vec<Candidate> {
    weights.iter().enumerate().map(|(index, weight)| endpoint(index, *weight)).collect()
}

/// How often each is picked in `picks` picks.
fn histogram(strategy: &Strategy, candidates: &[Candidate], picks: usize) -> Vec<usize> {
    let mut random = SplitMix(42);
    let mut counts = vec![0; candidates.len()];
    for _ in 0..picks {
        let picked = strategy.pick(candidates, random.next(), random.next(), &[]);
        counts[picked.unwrap()] += 1;
    }
    counts
}

/// Pearson's chi-square of counts against shares in any unit; shares of zero must have got nothing.
fn chi_square(counts: &[usize], shares: &[f64]) -> f64 {
    let scale = counts.iter().sum::<usize>() as f64 / shares.iter().sum::<f64>();
    let terms = counts.iter().zip(shares).map(|(&count, &share)| {
        if share == 0.0 {
            assert_eq!(count, 0);
            return 0.0;
        }
        (count as f64 - share * scale).powi(2) / (share * scale)
    });
    terms.sum()
}

/// The largest deviation from the shares, relative to the share.
fn deviation(counts: &[usize], shares: &[f64]) -> f64 {
    let scale = counts.iter().sum::<usize>() as f64 / shares.iter().sum::<f64>();
    counts
        .iter()
        .zip(shares)
        .filter(|(_, share)| **share > 0.0)
        .map(|(&count, share)| (count as f64 / (share * scale) - 1.0).abs())
        .fold(0.0, f64::max)
}

fn shares(candidates: &[Candidate]) -> Vec<f64> {
    let share = |c: &Candidate| f64::from(c.weight) * f64::from(c.ramp_permille);
    candidates.iter().map(|c| if c.available && !c.backup { share(c) } else { 0.0 }).collect()
}

/// With the smallest shares there are, where being off by one is being wrong.
#[test]
fn a_fraction_ends_in_the_share_that_begins_at_it() {
    let mut candidates = endpoints(&[1, 1]);
    candidates.iter_mut().for_each(|candidate| candidate.ramp_permille = 1);
    let picked = |fraction: u64| candidate::by_share(&candidates[..], &[], None, fraction).map(|(index, _)| index);
    assert_eq!(
        [picked(0), picked((1 << 63) - 1), picked(1 << 63), picked(u64::MAX)],
        [Some(0), Some(0), Some(1), Some(1)]
    );
}

/// Chi-square for random choice (99.99 % quantiles below), 5 % of the share where a table or a sequence is laid out.
fn assert_by_shares(kind: Kind, members: &[Candidate], candidates: &[Candidate]) {
    let strategy = Strategy::new(kind, members);
    let counts = histogram(&strategy, candidates, 100_000);
    let shares = shares(candidates);
    match kind {
        Kind::LeastRequests | Kind::PeakEwma => {
            // degrees of freedom up to 9: 33.7
            let chi_square = chi_square(&counts, &shares);
            assert!(chi_square < 33.7, "{kind:?} {counts:?}: {chi_square}");
        }
        Kind::RoundRobin | Kind::Hash => {
            let limit = if kind == Kind::Hash { 0.08 } else { 0.03 };
            let deviation = deviation(&counts, &shares);
            assert!(deviation < limit, "{kind:?} {counts:?}: {deviation}");
        }
    }
}

#[test]
fn an_idle_group_is_used_by_weight() {
    for kind in KINDS {
        for weights in [&[1, 1][..], &[1, 3], &[5, 1, 1], &[1; 10], &[1, 2, 3, 4, 5]] {
            let members = endpoints(weights);
            assert_by_shares(kind, &members, &members);
        }
    }
}

#[test]
fn the_share_of_an_absent_endpoint_goes_to_all_others_by_weight() {
    for kind in KINDS {
        for weights in [&[1, 1, 1][..], &[4, 1, 2, 1], &[1; 10]] {
            for absent in 0..weights.len() {
                let members = endpoints(weights);
                let mut now = members.clone();
                now[absent].available = false;
                assert_by_shares(kind, &members, &now);
            }
        }
    }
}

#[test]
fn slow_start_takes_its_part_of_the_share() {
    for kind in KINDS {
        for permille in [100, 500] {
            let members = endpoints(&[1, 2, 1, 1]);
            let mut now = members.clone();
            now[1].ramp_permille = permille;
            assert_by_shares(kind, &members, &now);
        }
    }
}

#[test]
fn a_group_all_in_slow_start_is_used_by_weight() {
    for kind in KINDS {
        let mut members = endpoints(&[1, 2, 3]);
        for member in &mut members {
            member.ramp_permille = 100;
        }
        assert_by_shares(kind, &members, &members);
    }
}

#[test]
fn backups_serve_only_when_no_primary_can() {
    for kind in KINDS {
        let mut group = endpoints(&[1, 1, 1, 1]);
        group[1].backup = true;
        group[3].backup = true;
        let strategy = Strategy::new(kind, &group);
        assert_eq!(histogram(&strategy, &group, 1000)[1], 0);
        group[0].available = false;
        assert_eq!(histogram(&strategy, &group, 1000)[2], 1000);
        group[2].available = false;
        let counts = histogram(&strategy, &group, 1000);
        assert!(counts[1] > 400 && counts[3] > 400, "{kind:?} {counts:?}");
    }
}

#[test]
fn nothing_available_is_none() {
    for kind in KINDS {
        let mut group = endpoints(&[1, 1]);
        let strategy = Strategy::new(kind, &group);
        group[0].available = false;
        assert_eq!(strategy.pick(&group, 1, 1, &[1]), None);
        assert_eq!(strategy.pick(&group, 1, 1, &[0]), Some(1));
        let empty: Vec<Candidate> = Vec::new();
        assert_eq!(Strategy::new(kind, &empty).pick(&empty, 1, 1, &[]), None);
    }
}

#[test]
fn what_was_tried_is_not_picked_again() {
    for kind in KINDS {
        let mut group = endpoints(&[1000, 1, 1]);
        group[2].backup = true;
        let strategy = Strategy::new(kind, &group);
        for seed in 0..1000 {
            assert_eq!(strategy.pick(&group, seed, seed, &[0]), Some(1));
            assert_eq!(strategy.pick(&group, seed, seed, &[0, 1]), Some(2));
        }
    }
}

#[test]
fn round_robin_is_exact_over_each_round() {
    let group = endpoints(&[3, 2, 1]);
    let strategy = Strategy::new(Kind::RoundRobin, &group);
    for _ in 0..10 {
        assert_eq!(histogram(&strategy, &group, 6), [3, 2, 1]);
    }
}

#[test]
fn round_robin_stays_even_with_half_of_its_members_away() {
    let members = endpoints(&[1; 20]);
    let strategy = Strategy::new(Kind::RoundRobin, &members);
    let mut now = members.clone();
    // ten in a row: the eleventh must not get all they leave
    for member in &mut now[..10] {
        member.available = false;
    }
    let counts = histogram(&strategy, &now, 20_000);
    let most = counts[10..].iter().max().unwrap() - counts[10..].iter().min().unwrap();
    assert!(most <= 10, "{counts:?}");
}

/// Requests arrive one by one and stay for a while; returns the highest number any endpoint had, and the mean.
fn busiest(strategy: &Strategy, group: &mut [Candidate], stay: usize, requests: usize) -> (u32, f64) {
    let mut random = SplitMix(7);
    let mut live = std::collections::VecDeque::new();
    let mut most = 0;
    for _ in 0..requests {
        if live.len() == stay {
            // one of those on their way finishes, whichever
            let done = random.next() as usize % stay;
            let index: usize = live.swap_remove_back(done).unwrap();
            group[index].in_flight -= 1;
        }
        let index = strategy.pick(group, random.next(), 0, &[]).unwrap();
        group[index].in_flight += 1;
        most = most.max(group[index].in_flight);
        live.push_back(index);
    }
    (most, stay as f64 / group.len() as f64)
}

#[test]
fn two_choices_keep_the_busiest_close_to_the_mean() {
    for kind in [Kind::LeastRequests, Kind::PeakEwma] {
        let mut group = endpoints(&[1; 50]);
        let strategy = Strategy::new(kind, &group);
        let (most, mean) = busiest(&strategy, &mut group, 500, 50_000);
        // by chance alone the busiest of 50 has about 24 when the mean is 10
        assert!(f64::from(most) <= mean + 5.0, "{kind:?}: {most} of {mean}");
    }
}

#[test]
fn under_load_requests_in_flight_follow_the_weights() {
    for kind in [Kind::LeastRequests, Kind::PeakEwma] {
        let mut group = endpoints(&[1, 2, 4]);
        let strategy = Strategy::new(kind, &group);
        busiest(&strategy, &mut group, 700, 20_000);
        let in_flight: Vec<_> = group.iter().map(|c| c.in_flight as usize).collect();
        let deviation = deviation(&in_flight, &[1.0, 2.0, 4.0]);
        assert!(deviation < 0.03, "{kind:?} {in_flight:?}");
    }
}

#[test]
fn the_one_that_hangs_gets_nothing_while_another_is_free() {
    let mut group = endpoints(&[1, 1]);
    group[0].in_flight = 10;
    for kind in [Kind::LeastRequests, Kind::PeakEwma] {
        let strategy = Strategy::new(kind, &group);
        assert_eq!(histogram(&strategy, &group, 1000), [0, 1000]);
    }
}

#[test]
fn peak_ewma_prefers_the_faster_until_it_is_busier() {
    let mut group = endpoints(&[1, 1]);
    group[1].ewma_ns = 4_000_000;
    let strategy = Strategy::new(Kind::PeakEwma, &group);
    assert_eq!(histogram(&strategy, &group, 1000), [1000, 0]);
    group[0].in_flight = 4;
    assert_eq!(histogram(&strategy, &group, 1000), [0, 1000]);
}

#[test]
fn peak_ewma_tries_the_unknown_once_at_a_time() {
    let mut group = endpoints(&[1, 1]);
    group[1].ewma_ns = 0;
    let strategy = Strategy::new(Kind::PeakEwma, &group);
    assert_eq!(histogram(&strategy, &group, 1000), [0, 1000]);
    group[1].in_flight = 1;
    assert_eq!(histogram(&strategy, &group, 1000), [1000, 0]);
}

/// Where each of 20,000 keys goes, by the endpoint's key so that it can be compared between memberships.
fn places(strategy: &Strategy, group: &[Candidate]) -> Vec<u64> {
    let picked = (0..20_000).map(|hash| strategy.pick(group, 0, hash, &[]).unwrap());
    picked.map(|index| group[index].key).collect()
}

#[test]
fn an_endpoint_that_leaves_moves_its_own_keys_only() {
    for weights in [&[1; 20][..], &[1, 2, 3, 4, 5, 1, 2, 3, 4, 5]] {
        let group = endpoints(weights);
        let before = places(&Strategy::new(Kind::Hash, &group), &group);
        for left in [0, 4, weights.len() - 1] {
            let mut fewer = group.clone();
            let gone = fewer.remove(left);
            let after = places(&Strategy::new(Kind::Hash, &fewer), &fewer);
            let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
            assert!(before.iter().zip(&after).all(|(a, b)| a == b || *a == gone.key));
            let share = f64::from(gone.weight) / weights.iter().sum::<u32>() as f64;
            let moved = moved as f64 / 20_000.0;
            assert!((moved / share - 1.0).abs() < 0.12, "{moved} of {share}");
        }
    }
}

#[test]
fn an_unavailable_endpoint_sends_its_keys_where_its_removal_would() {
    for weights in [&[1; 20][..], &[3, 1, 2, 5]] {
        let group = endpoints(weights);
        let mut away = group.clone();
        away[2].available = false;
        let mut fewer = group.clone();
        fewer.remove(2);
        assert_eq!(
            places(&Strategy::new(Kind::Hash, &group), &away),
            places(&Strategy::new(Kind::Hash, &fewer), &fewer)
        );
    }
}

#[test]
fn the_order_of_the_endpoints_does_not_matter_to_a_hash() {
    let group = endpoints(&[1; 7]);
    let mut turned = group.clone();
    turned.rotate_left(3);
    turned.swap(0, 5);
    assert_eq!(
        places(&Strategy::new(Kind::Hash, &group), &group),
        places(&Strategy::new(Kind::Hash, &turned), &turned)
    );
}

/// Whoever changes this moves everybody's keys with an update. The values are another program's.
#[test]
fn keys_stay_where_they_are_from_one_version_to_the_next() {
    assert_eq!(hash_of(b""), random::mix(0xcbf2_9ce4_8422_2325));
    assert_eq!(
        ["a", "10.0.0.1:3000", "ü"].map(|text| hash_of(text.as_bytes())),
        [0x2c0_bdbf_4814_20f8, 0x88f5_2a5c_e777_5b4e, 0x772d_5ffd_bcb8_f81a]
    );
    let labels = ["10.0.0.1:3000", "10.0.0.2:3000", "10.0.0.3:3000"];
    let mut group = endpoints(&[1, 2, 1]);
    for (endpoint, label) in group.iter_mut().zip(labels) {
        endpoint.key = hash_of(label.as_bytes());
    }
    let strategy = Strategy::new(Kind::Hash, &group);
    let place = |user: u32| strategy.pick(&group, 0, hash_of(format!("user {user}").as_bytes()), &[]).unwrap();
    assert_eq!((0..20).map(place).collect::<Vec<_>>(), [2, 1, 0, 1, 0, 1, 2, 2, 1, 0, 1, 2, 1, 2, 1, 0, 2, 1, 0, 1]);
}

#[test]
fn labels_and_keys_that_are_alike_are_spread_evenly() {
    let mut group = endpoints(&[1; 10]);
    for (index, endpoint) in group.iter_mut().enumerate() {
        endpoint.key = hash_of(format!("10.0.0.{index}:3000").as_bytes());
    }
    let strategy = Strategy::new(Kind::Hash, &group);
    let mut counts = vec![0; 10];
    for client in 0..20_000_u32 {
        let hash = hash_of(&(0x0a00_0000 + client).to_be_bytes());
        counts[strategy.pick(&group, 0, hash, &[]).unwrap()] += 1;
    }
    let deviation = deviation(&counts, &[1.0; 10]);
    assert!(deviation < 0.12, "{counts:?}: {deviation}");
}

#[test]
fn slow_start_gives_a_hash_its_keys_back_one_after_the_other() {
    let group = endpoints(&[1; 5]);
    let strategy = Strategy::new(Kind::Hash, &group);
    let key = group[3].key;
    let mut had = vec![false; 20_000];
    for permille in [100, 300, 700, 1000] {
        let mut now = group.clone();
        now[3].ramp_permille = permille;
        let has: Vec<_> = places(&strategy, &now).iter().map(|at| *at == key).collect();
        assert!(had.iter().zip(&has).all(|(had, has)| !had || *has));
        had = has;
    }
}

#[test]
fn a_hash_spreads_two_hundred_endpoints() {
    let group = endpoints(&[1; 200]);
    let counts = histogram(&Strategy::new(Kind::Hash, &group), &group, 400_000);
    let deviations = counts.iter().map(|&count| (count as f64 / 2000.0 - 1.0).powi(2));
    let spread = (deviations.sum::<f64>() / 200.0).sqrt();
    // √(200 ÷ 16,384) = 11 % from the table, 2 % from the sample
    assert!(spread < 0.14, "{spread}");
}

#[test]
fn strategies_are_shared_by_workers() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Strategy>();
    crosses::<Ejection>();
    crosses::<Ewma>();
    crosses::<RetryBudget>();
}
