use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::*;

/// Words order by themselves here, and zero owes nothing.
fn owes(word: u64) -> u64 {
    word
}

fn hashes(count: usize) -> Vec<u64> {
    let seed = RandomState::new();
    (0..count).map(|number| seed.hash_one(number).max(1)).collect()
}

fn add(table: &Table, key: u64, word: u64) -> bool {
    table.lock(key).add(key, word, owes)
}

#[test]
fn a_key_is_found_with_its_word_and_added_once() {
    let table = Table::new(100);
    assert!(table.find(7).is_none());
    assert!(add(&table, 7, 42));
    assert_eq!(table.find(7).unwrap().word.load(Ordering::Relaxed), 42);
    assert!(!add(&table, 7, 43));
    assert_eq!(table.find(7).unwrap().word.load(Ordering::Relaxed), 42);
    assert_eq!(table.len(), 1);
}

#[test]
fn the_bound_holds_at_every_size() {
    for keys_max in [1, 2, 7, 8, 9, 100, 4_096, 4_097, 50_000] {
        let table = Table::new(keys_max);
        for key in hashes(keys_max * 3 + 100) {
            assert!(add(&table, key, 5));
            assert!(table.find(key).is_some(), "the newest is always in");
        }
        assert_eq!(table.len(), keys_max);
        assert_eq!(table.bytes(), table.bytes_max());
        let mut seen = 0;
        table.for_each(|_, _| seen += 1);
        assert_eq!(seen, keys_max);
    }
}

#[test]
fn few_leave_before_the_bound_is_reached() {
    let table = Table::new(100_000);
    let keys = hashes(95_000);
    keys.iter().for_each(|&key| assert!(add(&table, key, 5)));
    let lost = keys.iter().filter(|&&key| table.find(key).is_none()).count();
    assert!(lost <= 20, "{lost} of 95,000 left a table for 100,000");
}

#[test]
fn who_owes_nothing_leaves_before_an_empty_slot_is_used() {
    let table = Table::new(7);
    for key in 1..=3 {
        add(&table, key, 0);
    }
    assert_eq!(table.len(), 1, "one bucket, one slot over and over");
}

#[test]
fn the_stalest_of_a_full_bucket_leaves() {
    let table = Table::new(7);
    for key in 1..=7 {
        add(&table, key, 100 - key);
    }
    add(&table, 8, 1_000);
    let gone: Vec<u64> = (1..=8).filter(|&key| table.find(key).is_none()).collect();
    assert_eq!(gone, [7]);
}

#[test]
fn those_who_leave_a_large_table_are_among_the_stalest() {
    let table = Table::new(20_000);
    let keys = hashes(22_000);
    for (age, &key) in keys.iter().take(20_000).enumerate() {
        add(&table, key, 1 + age as u64);
    }
    for &key in &keys[20_000..] {
        add(&table, key, 1_000_000);
    }
    let gone: Vec<usize> = (0..20_000).filter(|&age| table.find(keys[age]).is_none()).collect();
    let mean = gone.iter().sum::<usize>() / gone.len();
    // A tenth of the keys leave: the stalest tenth would have a mean age of 1,000, chance one of 10,000.
    assert!(mean < 2_500, "mean rank {mean}");
}

#[test]
fn a_charge_in_between_keeps_the_owner_in() {
    let table = Table::new(7);
    add(&table, 1, 10);
    let slot = table.find(1).unwrap();
    let candidate = Candidate::new(slot, 1, &owes);
    slot.word.store(99, Ordering::Relaxed);
    assert!(!candidate.replace(2, 5));
    assert!(slot.holds(1));
    assert_eq!(slot.word.load(Ordering::Relaxed), 99);
}

#[test]
fn a_key_lives_elsewhere_in_every_table() {
    let tables: Vec<_> = (0..100).map(|_| Table::new(SHARD_KEYS_MAX)).collect();
    let places: HashSet<_> = tables.iter().map(|table| table.layout.first_home(7)).collect();
    assert!(places.len() > 50, "{} places in a hundred tables", places.len());
}
