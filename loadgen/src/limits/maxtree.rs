//! A tree of numbers that adds to a prefix and finds the greatest of a prefix, both in logarithmic time.

/// See the module's documentation.
pub struct MaxTree {
    size: usize,
    /// The greatest of each subtree, without what was added to the nodes above it.
    greatest: Vec<f64>,
    added: Vec<f64>,
}

impl MaxTree {
    /// A tree over these numbers.
    pub fn new(numbers: &[f64]) -> Self {
        let size = numbers.len().next_power_of_two();
        let mut greatest = vec![f64::NEG_INFINITY; 2 * size];
        greatest[size..size + numbers.len()].copy_from_slice(numbers);
        for node in (1..size).rev() {
            greatest[node] = greatest[2 * node].max(greatest[2 * node + 1]);
        }
        Self { size, greatest, added: vec![0.0; 2 * size] }
    }

    /// Adds to the first `n` numbers.
    pub fn add_to_first(&mut self, n: usize, amount: f64) {
        self.add(1, self.size, n, amount);
    }

    fn add(&mut self, node: usize, width: usize, n: usize, amount: f64) {
        if n == 0 {
            return;
        }
        if n >= width {
            self.greatest[node] += amount;
            self.added[node] += amount;
            return;
        }
        let half = width / 2;
        self.add(2 * node, half, n.min(half), amount);
        self.add(2 * node + 1, half, n.saturating_sub(half), amount);
        self.greatest[node] = self.greatest[2 * node].max(self.greatest[2 * node + 1]) + self.added[node];
    }

    /// The greatest of the first `n`.
    pub fn greatest_of_first(&self, n: usize) -> f64 {
        self.find(1, self.size, n)
    }

    fn find(&self, node: usize, width: usize, n: usize) -> f64 {
        if n == 0 {
            return f64::NEG_INFINITY;
        }
        if n >= width {
            return self.greatest[node];
        }
        let half = width / 2;
        let left = self.find(2 * node, half, n.min(half));
        left.max(self.find(2 * node + 1, half, n.saturating_sub(half))) + self.added[node]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_plain_list() {
        let mut numbers: Vec<f64> = (0..37).map(|i| f64::from((i * 17) % 23)).collect();
        let mut tree = MaxTree::new(&numbers);
        for step in 0..200usize {
            let (n, amount) = ((step * 31) % 38, (step % 7) as f64 - 3.0);
            tree.add_to_first(n, amount);
            numbers[..n].iter_mut().for_each(|x| *x += amount);
            let q = (step * 13) % 38;
            let want = numbers[..q].iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(tree.greatest_of_first(q), want, "step {step}");
        }
    }
}
