//! The invariants, looked at.

use super::Graph;

impl Graph {
    /// Whether the invariants hold when exactly the `live` rows are in the graph.
    ///
    /// # Errors
    /// What is wrong first.
    pub(in crate::index) fn check(&self, live: impl Fn(u32) -> bool) -> Result<(), String> {
        let rows = u32::try_from(self.adjacency.rows()).map_err(|e| e.to_string())?;
        let all: Vec<u32> = (0..rows).filter(|row| live(*row)).collect();
        let top = all.iter().map(|row| self.adjacency.level(*row)).max();
        match (self.entry(), top) {
            (None, None) => {}
            (Some(entry), Some(top)) if live(entry) && self.adjacency.level(entry) == top => {}
            (entry, top) => return Err(format!("entry {entry:?}, top level {top:?}")),
        }
        for row in 0..rows {
            for level in 0..=self.adjacency.level(row) {
                self.check_list(level, row, &live)?;
            }
        }
        for level in 0..=top.unwrap_or(0) {
            let on = all.iter().copied().filter(|row| self.adjacency.level(*row) >= level);
            self.check_tree(level, &on.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn check_list(
        &self,
        level: usize,
        row: u32,
        live: &impl Fn(u32) -> bool,
    ) -> Result<(), String> {
        let list = self.adjacency.list(level, row);
        let mut rows: Vec<u32> = list.rows().collect();
        let wrong = |what: &str| Err(format!("level {level}, row {row}: {what}"));
        if list.words().any(|word| word != 0) && !live(row) {
            return wrong("dead and not zero");
        }
        if list.words().skip(rows.len()).any(|word| word != 0) {
            return wrong("words after the end");
        }
        for link in list.iter() {
            if !live(link.row) || self.adjacency.level(link.row) < level {
                return wrong(&format!("names {}, which is not there", link.row));
            }
            let back = self.adjacency.list(level, link.row).find(row);
            if back.is_none_or(|back| back.tie != link.tie) {
                return wrong(&format!("link to {} is not mutual", link.row));
            }
        }
        rows.sort_unstable();
        rows.dedup();
        if rows.len() != list.len() || rows.contains(&row) {
            return wrong("names a row twice, or itself");
        }
        Ok(())
    }

    fn check_tree(&self, level: usize, rows: &[u32]) -> Result<(), String> {
        let ties: usize = rows.iter().map(|row| self.adjacency.list(level, *row).ties()).sum();
        let mut met = vec![false; self.adjacency.rows()];
        let mut stack: Vec<u32> = rows.first().copied().into_iter().collect();
        let mut reached = 0;
        while let Some(row) = stack.pop() {
            if !std::mem::replace(&mut met[row as usize], true) {
                reached += 1;
                let ties = self.adjacency.list(level, row).iter().filter(|link| link.tie);
                stack.extend(ties.map(|link| link.row));
            }
        }
        if reached != rows.len() || (ties + 2 != 2 * rows.len() && !rows.is_empty()) {
            let n = rows.len();
            return Err(format!("level {level}: {n} rows, {ties} tie ends, {reached} reached"));
        }
        Ok(())
    }
}
