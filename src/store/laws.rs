//! What every [`ByteTree`] has to keep, whatever it is made of. The journal relies on each of these and on nothing else.
//!
//! sled under its wrapping passes them, and so does the simulated disk: what is proved over the one is worth something for
//! the other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::tree::{Batch, ByteTree, Entry};

/// A place whose trees can be opened one after the other; what one has synced the next has to find.
pub(crate) trait Bed {
    /// Opens the tree as a new process does.
    fn open(&mut self) -> Box<dyn ByteTree>;

    /// The power goes while no tree is open: what was not synced may be lost. Where it can't go, nothing happens.
    fn power_cut(&mut self) {}
}

/// Checks all laws, each in a bed of its own.
///
/// # Panics
/// At the first law that does not hold.
pub(crate) fn check<B: Bed>(mut bed: impl FnMut() -> B) {
    type Law = (&'static str, fn(&mut dyn Bed));
    let laws: [Law; 10] = [
        ("a new tree is empty, and so are its marks", new_is_empty),
        ("a batch is readable at once, by key and by prefix", readable_at_once),
        ("entries come in the order of their bytes, and only those of the prefix", ordered),
        ("a visitor is shown the same, and stops where it says so", visited),
        ("a later value replaces the earlier one, of whatever length", replaced),
        ("a delete takes away what is there, and is no error where nothing is", deleted),
        ("deletes and puts of one batch do not meet, and an empty batch is none", one_batch),
        ("what was synced is there after a power cut", synced_stays),
        ("a batch is there as a whole or not at all", whole_or_not),
        ("the slots of the mark are two, durable and apart from the entries", marks),
    ];
    for (law, holds) in laws {
        let mut bed = bed();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| holds(&mut bed)));
        if let Err(why) = outcome {
            let text = why.downcast_ref::<String>().map(String::as_str).or_else(|| why.downcast_ref::<&str>().copied());
            panic!("{law}: {}", text.expect("a panic with words"));
        }
    }
}

fn key(number: u32) -> Vec<u8> {
    [b"k".as_slice(), &number.to_be_bytes()].concat()
}

fn puts(entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Batch {
    Batch { puts: entries.into_iter().collect(), deletes: Vec::new() }
}

fn apply(tree: &mut dyn ByteTree, batch: &Batch) {
    tree.apply(batch).expect("it is applied");
}

fn all(tree: &dyn ByteTree) -> Vec<Entry> {
    tree.scan(&[]).expect("it is read")
}

fn sync(tree: &mut dyn ByteTree) {
    tree.sync().expect("it is synced");
}

fn get(tree: &dyn ByteTree, key: &[u8]) -> Option<Vec<u8>> {
    tree.get(key).expect("it is read")
}

fn new_is_empty(bed: &mut dyn Bed) {
    let tree = bed.open();
    assert_eq!(all(tree.as_ref()), []);
    assert_eq!(get(tree.as_ref(), b"k"), None);
    assert_eq!(tree.read_mark().expect("it is read"), [None, None]);
}

fn readable_at_once(bed: &mut dyn Bed) {
    let mut tree = bed.open();
    apply(tree.as_mut(), &puts([(key(1), b"one".to_vec()), (key(2), Vec::new())]));
    assert_eq!(get(tree.as_ref(), &key(1)).as_deref(), Some(b"one".as_slice()));
    assert_eq!(get(tree.as_ref(), &key(2)).as_deref(), Some(b"".as_slice()), "an empty value is one");
    assert_eq!(get(tree.as_ref(), b"k"), None, "the beginning of a key is none");
    assert_eq!(all(tree.as_ref()).len(), 2);
}

fn ordered(bed: &mut dyn Bed) {
    let mut tree = bed.open();
    let numbers = [255, 0, 256, 1, 65_536, u32::MAX, 7];
    apply(tree.as_mut(), &puts(numbers.map(|number| (key(number), number.to_be_bytes().to_vec()))));
    apply(tree.as_mut(), &puts([(b"j".to_vec(), vec![1]), (b"l".to_vec(), vec![1]), (vec![0xFF, 0xFF], vec![1])]));
    let found = tree.scan(b"k").expect("it is read");
    let mut expected = numbers;
    expected.sort_unstable();
    assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), expected.map(key));
    assert_eq!(tree.scan(&[0xFF]).expect("it is read").len(), 1, "a prefix of 0xFF has an end, too");
    assert_eq!(all(tree.as_ref()).len(), numbers.len() + 3);
}

fn visited(bed: &mut dyn Bed) {
    let mut tree = bed.open();
    apply(tree.as_mut(), &puts((0..40).map(|number| (key(number), vec![7; 9000]))));
    let mut seen = Vec::new();
    let mut look = |key: &[u8], value: &[u8]| {
        seen.push((key.to_vec(), value.to_vec()));
        if seen.len() == 25 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    tree.visit(b"k", &mut look).expect("it is read");
    assert_eq!(seen, all(tree.as_ref())[..25]);
}

fn replaced(bed: &mut dyn Bed) {
    let mut tree = bed.open();
    // Around every size at which something is cut into pieces, up and down.
    for length in [1, 4095, 4096, 4097, 70_000, 8192, 0, 100_000, 3] {
        apply(tree.as_mut(), &puts([(key(1), vec![5; length])]));
        assert_eq!(get(tree.as_ref(), &key(1)).map(|value| value.len()), Some(length));
        assert_eq!(all(tree.as_ref()).len(), 1, "{length} bytes: nothing of the longer one is left");
    }
}

fn deleted(bed: &mut dyn Bed) {
    let mut tree = bed.open();
    apply(tree.as_mut(), &puts([(key(1), vec![1; 50_000]), (key(2), vec![2])]));
    apply(tree.as_mut(), &Batch { puts: Vec::new(), deletes: vec![key(1), key(3)] });
    assert_eq!(all(tree.as_ref()), [(key(2), vec![2])]);
    assert_eq!(get(tree.as_ref(), &key(1)), None);
}

fn one_batch(bed: &mut dyn Bed) {
    let mut tree = bed.open();
    apply(tree.as_mut(), &puts([(key(1), vec![1])]));
    apply(tree.as_mut(), &Batch { puts: vec![(key(2), vec![2])], deletes: vec![key(1)] });
    apply(tree.as_mut(), &Batch::default());
    assert_eq!(all(tree.as_ref()), [(key(2), vec![2])]);
}

fn synced_stays(bed: &mut dyn Bed) {
    let mut expected = BTreeMap::new();
    for life in 0..4_u32 {
        let mut tree = bed.open();
        assert_eq!(all(tree.as_ref()), expected.clone().into_iter().collect::<Vec<_>>(), "life {life}");
        for number in 0..30 {
            let (key, value) = (key(number), vec![1; (life * 900 + number * 37) as usize]);
            apply(tree.as_mut(), &puts([(key.clone(), value.clone())]));
            expected.insert(key, value);
        }
        let gone = key(life);
        apply(tree.as_mut(), &Batch { puts: Vec::new(), deletes: vec![gone.clone()] });
        expected.remove(&gone);
        sync(tree.as_mut());
        drop(tree);
        bed.power_cut();
    }
}

fn whole_or_not(bed: &mut dyn Bed) {
    for life in 1..6_u8 {
        let mut tree = bed.open();
        let found: Vec<Vec<u8>> = all(tree.as_ref()).into_iter().map(|(_, value)| value).collect();
        assert!(found.is_empty() || found.len() == 50, "life {life}: {} of 50", found.len());
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "life {life}: of more than one batch");
        apply(tree.as_mut(), &puts((0..50).map(|number| (key(number), vec![life; 3000]))));
        if life % 2 == 0 {
            sync(tree.as_mut());
        }
        drop(tree);
        bed.power_cut();
    }
}

fn marks(bed: &mut dyn Bed) {
    let mut tree = bed.open();
    tree.write_mark(1, &[1; 64]).expect("it is written");
    assert_eq!(tree.read_mark().expect("it is read"), [None, Some(vec![1; 64])]);
    drop(tree);
    bed.power_cut();
    let mut tree = bed.open();
    tree.write_mark(0, &[2; 64]).expect("it is written");
    tree.write_mark(1, &[3; 64]).expect("it is written");
    drop(tree);
    bed.power_cut();
    let tree = bed.open();
    assert_eq!(tree.read_mark().expect("it is read"), [Some(vec![2; 64]), Some(vec![3; 64])]);
    assert_eq!(all(tree.as_ref()), [], "and no entry of it");
}
