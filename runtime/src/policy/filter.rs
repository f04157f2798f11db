//! Changes of a response's body that need not hold it: fed piece by piece, as the upstream sends.

/// A body on its way to the client.
pub trait BodyFilter {
    /// Takes in some of `input` and appends what comes of it to `out`; says how much it took. It takes less than all
    /// only where it has given something out, so that what a small input becomes is bounded, too.
    ///
    /// # Errors
    /// The body is not what it claims to be. What the client has got stays; the connection ends, so that it can tell.
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, FilterError>;

    /// The upstream pauses: everything taken in so far goes out, so that slow bodies are not held back.
    ///
    /// # Errors
    /// As [`BodyFilter::push`].
    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), FilterError>;

    /// The input is over: gives out the rest, some of it at a time, until it answers `true`.
    ///
    /// # Errors
    /// As [`BodyFilter::push`]; also where the input has ended too early.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<bool, FilterError>;
}

/// Why a body cannot be changed as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterError(pub &'static str);

/// Runs a whole body through a filter.
///
/// # Errors
/// As the filter; also where more than `limit` bytes come of it.
pub fn whole(filter: &mut dyn BodyFilter, mut input: &[u8], limit: usize) -> Result<Vec<u8>, FilterError> {
    let mut out = Vec::new();
    let bounded = |out: &Vec<u8>| match out.len() > limit {
        true => Err(FilterError("the body is larger than a policy may hold")),
        false => Ok(()),
    };
    while !input.is_empty() {
        let taken = filter.push(input, &mut out)?;
        input = &input[taken..];
        bounded(&out)?;
    }
    while !filter.finish(&mut out)? {
        bounded(&out)?;
    }
    bounded(&out).map(|()| out)
}
