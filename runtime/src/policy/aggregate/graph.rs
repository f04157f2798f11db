//! Which part waits for which: inferred from what their templates look up.

use crate::source::Span;

/// A part's reference to another, where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub to: usize,
    pub span: Span,
}

/// References that go round in a circle, each by the part that it stands in; `None` if there are none.
pub fn cycle(needs: &[Vec<Edge>]) -> Option<Vec<(usize, Edge)>> {
    // 0: not seen, 1: on the way, 2: leads to no circle.
    let mut seen = vec![0_u8; needs.len()];
    (0..needs.len()).find_map(|start| visit(start, needs, &mut seen, &mut Vec::new()))
}

/// The depth is that of the longest chain of parts, and a config has few.
fn visit(
    part: usize,
    needs: &[Vec<Edge>],
    seen: &mut [u8],
    way: &mut Vec<(usize, Edge)>,
) -> Option<Vec<(usize, Edge)>> {
    match seen[part] {
        1 => {
            let from = way.iter().position(|(p, _)| *p == part).unwrap_or(0);
            return Some(way.split_off(from));
        }
        2 => return None,
        _ => seen[part] = 1,
    }
    for edge in &needs[part] {
        way.push((part, *edge));
        if let Some(found) = visit(edge.to, needs, seen, way) {
            return Some(found);
        }
        way.pop();
    }
    seen[part] = 2;
    None
}

/// The parts that are needed if these are, in place.
pub fn close(needed: &mut [bool], needs: &[Vec<usize>]) {
    let mut todo: Vec<usize> = (0..needed.len()).filter(|i| needed[*i]).collect();
    while let Some(part) = todo.pop() {
        for &other in &needs[part] {
            if !std::mem::replace(&mut needed[other], true) {
                todo.push(other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(usize, usize)]) -> Vec<Vec<Edge>> {
        let mut needs = vec![Vec::new(); 5];
        for (from, to) in edges {
            needs[*from].push(Edge { to: *to, span: Span::default() });
        }
        needs
    }

    #[test]
    fn circles_are_found_and_nothing_else() {
        for (edges, want) in [
            (&[][..], None),
            (&[(1, 0), (2, 0), (3, 1), (3, 2)], None),
            (&[(0, 0)], Some(vec![0])),
            (&[(4, 0), (0, 1), (1, 2), (2, 0)], Some(vec![0, 1, 2])),
            (&[(0, 1), (1, 2), (2, 1)], Some(vec![1, 2])),
        ] {
            let found = cycle(&graph(edges)).map(|c| c.iter().map(|(p, _)| *p).collect::<Vec<_>>());
            assert_eq!(found, want, "{edges:?}");
        }
    }

    #[test]
    fn what_is_needed_pulls_in_what_it_needs() {
        let mut needed = [false, false, false, true];
        close(&mut needed, &[vec![], vec![0], vec![], vec![1]]);
        assert_eq!(needed, [true, true, false, true]);
    }
}
