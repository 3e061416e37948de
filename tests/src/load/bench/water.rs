//! The ideal to hold an overloaded limit against: the most important class gets all that it wants,
//! the next one what is left, and so on. Pure.

/// What each class should be admitted of its demand, most important first.
pub fn fill(limit: u64, demand: &[u64]) -> Vec<u64> {
    let mut left = limit;
    let class = |wanted: &u64| {
        let given = left.min(*wanted);
        left -= given;
        given
    };
    demand.iter().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_class_goes_dry_first() {
        let table: [(&[u64], &[u64]); 4] = [
            (&[300, 400, 600, 1000], &[300, 400, 300, 0]),
            (&[0, 0, 0, 2000], &[0, 0, 0, 1000]),
            (&[1200, 0, 0, 1000], &[1000, 0, 0, 0]),
            (&[50, 100, 500, 100], &[50, 100, 500, 100]),
        ];
        for (demand, expected) in table {
            assert_eq!(fill(1000, demand), expected);
        }
    }
}
