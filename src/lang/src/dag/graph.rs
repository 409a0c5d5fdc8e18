//! Names of nodes, and the edges between them, each kept once and close together.

use std::collections::BTreeMap;

/// Marks a weak edge: the child waits for its parent's end, however it ends.
const WEAK: u32 = 1 << 31;

/// Strings by number, each once.
#[derive(Clone, Default)]
pub(super) struct Names {
    text: String,
    ends: Vec<u32>,
    numbers: BTreeMap<Box<str>, u32>,
}

impl Names {
    pub(super) fn get(&self, number: u32) -> &str {
        let number = number as usize;
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(number).copied().unwrap_or(start);
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The number of `name`, and whether it is new; none when names take 4 GiB.
    pub(super) fn add(&mut self, name: &str) -> Option<(u32, bool)> {
        if let Some(number) = self.find(name) {
            return Some((number, false));
        }
        let end = u32::try_from(self.text.len() + name.len()).ok()?;
        let number = u32::try_from(self.ends.len()).ok()?;
        self.text.push_str(name);
        self.ends.push(end);
        self.numbers.insert(name.into(), number);
        Some((number, true))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..).take(self.ends.len()).map(|number| self.get(number))
    }
}

/// An edge while the graph is built.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    pub(super) parent: u32,
    pub(super) child: u32,
    pub(super) weak: bool,
    /// Which command made it.
    pub(super) command: u32,
}

/// The edges of a DAG: the children of each node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Where each node's children begin in `children`, and their end.
    starts: Vec<u32>,
    children: Vec<u32>,
}

impl Graph {
    /// The graph of `nodes` nodes, and the command of each edge in the order of the edges. Of the edges between the same two nodes
    /// one is kept, a strong one if there is any.
    pub(super) fn new(nodes: usize, mut edges: Vec<Edge>) -> (Graph, Vec<u32>) {
        edges.sort_unstable_by_key(|e| (e.parent, e.child, e.weak, e.command));
        edges.dedup_by_key(|e| (e.parent, e.child));
        let mut starts = Vec::with_capacity(nodes + 1);
        let mut children = Vec::with_capacity(edges.len());
        let mut commands = Vec::with_capacity(edges.len());
        let mut rest = edges.iter().peekable();
        for node in (0..).take(nodes) {
            starts.push(u32::try_from(children.len()).unwrap_or(u32::MAX));
            while let Some(edge) = rest.next_if(|edge| edge.parent <= node) {
                children.push(edge.child | if edge.weak { WEAK } else { 0 });
                commands.push(edge.command);
            }
        }
        starts.push(u32::try_from(children.len()).unwrap_or(u32::MAX));
        (Graph { starts, children }, commands)
    }

    fn range(&self, node: u32) -> std::ops::Range<usize> {
        let at = |i: usize| self.starts.get(i).map_or(0, |start| *start as usize);
        at(node as usize)..at(node as usize + 1)
    }

    /// The children of `node`, in order, each with whether the edge is weak.
    pub fn children(&self, node: u32) -> impl Iterator<Item = (u32, bool)> {
        self.children.get(self.range(node)).unwrap_or_default().iter().map(|c| (c & !WEAK, c & WEAK != 0))
    }

    /// How many edges there are.
    pub fn edges(&self) -> usize {
        self.children.len()
    }

    /// How many parents each node has.
    pub fn parents(&self) -> Vec<u32> {
        let mut parents = vec![0_u32; self.starts.len().saturating_sub(1)];
        for child in &self.children {
            if let Some(count) = parents.get_mut((child & !WEAK) as usize) {
                *count += 1;
            }
        }
        parents
    }

    /// A cycle, if there is one: its nodes, each with the place of the edge to the next one in the order of all edges.
    pub(super) fn cycle(&self) -> Option<Vec<(u32, usize)>> {
        let mut waits = self.parents();
        let mut free: Vec<u32> = (0..).zip(&waits).filter(|(_, n)| **n == 0).map(|(node, _)| node).collect();
        let mut left = waits.len();
        while let Some(node) = free.pop() {
            left -= 1;
            for (child, _) in self.children(node) {
                if let Some(n) = waits.get_mut(child as usize) {
                    *n -= 1;
                    if *n == 0 {
                        free.push(child);
                    }
                }
            }
        }
        if left == 0 {
            return None;
        }
        // Every node that is left has a parent that is left: going up from any of them comes round.
        let stuck = |node: u32| waits.get(node as usize).is_some_and(|n| *n > 0);
        let mut up = vec![None; waits.len()];
        for parent in (0..).take(waits.len()).filter(|node| stuck(*node)) {
            for (edge, (child, _)) in self.range(parent).zip(self.children(parent)) {
                if stuck(child)
                    && let Some(slot) = up.get_mut(child as usize)
                {
                    *slot = Some((parent, edge));
                }
            }
        }
        let mut seen = vec![false; waits.len()];
        let mut node = (0..).take(waits.len()).find(|node| stuck(*node))?;
        while !std::mem::replace(seen.get_mut(node as usize)?, true) {
            node = up.get(node as usize).copied().flatten()?.0;
        }
        let mut path = Vec::new();
        let first = node;
        loop {
            let (parent, edge) = up.get(node as usize).copied().flatten()?;
            path.push((parent, edge));
            node = parent;
            if node == first {
                break;
            }
        }
        path.reverse();
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: usize, edges: &[(u32, u32)]) -> Graph {
        let edge = |(parent, child): &(u32, u32)| Edge { parent: *parent, child: *child, weak: false, command: 0 };
        Graph::new(nodes, edges.iter().map(edge).collect()).0
    }

    #[test]
    fn edges_are_kept_once() {
        let edge = |parent, child, weak, command| Edge { parent, child, weak, command };
        let edges = vec![edge(2, 0, true, 1), edge(0, 1, true, 2), edge(0, 1, false, 3), edge(0, 2, false, 4)];
        let (graph, commands) = Graph::new(3, edges);
        let children: Vec<Vec<_>> = (0..3).map(|n| graph.children(n).collect()).collect();
        assert_eq!(children, [vec![(1, false), (2, false)], vec![], vec![(0, true)]]);
        assert_eq!((graph.edges(), commands), (3, vec![3, 4, 1]));
        assert_eq!(graph.parents(), [1, 1, 1]);
        assert_eq!(graph.children(9).count(), 0);
    }

    #[test]
    fn cycles_are_found() {
        let check = |nodes, edges: &[(u32, u32)], expected: Option<&[u32]>| {
            let graph = graph(nodes, edges);
            let found = graph.cycle().map(|path| path.into_iter().map(|(node, _)| node).collect::<Vec<_>>());
            let found = found.map(|mut path| {
                let least = path.iter().enumerate().min_by_key(|(_, n)| **n).map_or(0, |(i, _)| i);
                path.rotate_left(least);
                path
            });
            assert_eq!(found.as_deref(), expected, "{edges:?}");
            for pair in found.unwrap_or_default().windows(2) {
                assert!(edges.contains(&(pair[0], pair[1])));
            }
        };
        check(4, &[(0, 1), (1, 2), (0, 2), (2, 3)], None);
        check(1, &[(0, 0)], Some(&[0]));
        check(5, &[(0, 1), (1, 2), (2, 3), (3, 1), (3, 4)], Some(&[1, 2, 3]));
        check(0, &[], None);
    }

    #[test]
    fn names_are_interned() {
        let mut names = Names::default();
        let numbers: Vec<_> = ["A", "", "B", "A", "ä"].iter().map(|n| names.add(n)).collect();
        assert_eq!(numbers, [Some((0, true)), Some((1, true)), Some((2, true)), Some((0, false)), Some((3, true))]);
        assert_eq!(names.iter().collect::<Vec<_>>(), ["A", "", "B", "ä"]);
        assert_eq!((names.find("B"), names.find("b")), (Some(2), None));
    }
}
