//! Fuzz input read by `arbitrary`, in pieces whose number says itself how long they are: what is inserted or lost
//! somewhere leaves the steps before it as they were.

use arbitrary::{Arbitrary, Result, Unstructured};

/// The steps that the rest of the input stands for.
pub(super) fn steps<'a, T: Arbitrary<'a>>(mut input: Unstructured<'a>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || if input.is_empty() { None } else { input.arbitrary().ok() })
}

/// Up to `MAX` of them, their number first. A `Vec` of `arbitrary`'s own ends after each with one chance in two.
#[derive(Clone, Debug)]
pub(super) struct Few<T, const MAX: usize>(pub(super) Vec<T>);

impl<'a, T: Arbitrary<'a>, const MAX: usize> Arbitrary<'a> for Few<T, MAX> {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let count = input.int_in_range(0..=MAX)?;
        (0..count).map(|_| input.arbitrary()).collect::<Result<_>>().map(Self)
    }
}

/// Up to 255 bytes, their number first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short<'a>(pub(super) &'a [u8]);

impl<'a> Arbitrary<'a> for Short<'a> {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let length = usize::from(u8::arbitrary(input)?);
        input.bytes(length.min(input.len())).map(Self)
    }
}
