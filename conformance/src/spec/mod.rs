//! The checker of the specification: each sentence of `protocol-spec/` that binds has an id, the code cites the id
//! where it enforces it, and tests, vectors and behaviours where they test it.
//!
//! [`Spec::read`] reads the repository, [`Spec::check`] says what is wrong, and [`Spec::coverage`] prints how much is
//! covered. What nobody cites has to stand in `protocol-spec/exceptions.txt`, with a reason.

mod citations;
mod page;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

pub use citations::{Citation, Role};
pub use page::{Force, Page, Sentence};

/// The prefixes of ids, in the order of their pages.
pub const PREFIXES: [&str; 14] = [
    "OVER", "ENC", "NOISE", "STREAM", "MUX", "FEED", "REPL", "PARTY", "STORE", "NAME", "CRED", "TICKET",
    "THREAT", "LIMIT",
];

/// What a MUST may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// No code cites it.
    Enforced,
    /// No test, vector or behaviour cites it.
    Tested,
}

/// All that is to be checked.
#[derive(Debug, Default)]
pub struct Spec {
    /// The pages.
    pub pages: Vec<Page>,
    /// Files of the specification that are no pages, such as `party.proto`.
    pub others: Vec<String>,
    /// Who cites what.
    pub citations: Vec<Citation>,
    /// What may be lacking, and why.
    pub exceptions: BTreeMap<(String, Lack), String>,
    /// What was wrong when it was read.
    pub faults: Vec<String>,
}

impl Spec {
    /// Reads the repository at `root`.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut spec = Self::default();
        for path in files(&root.join("protocol-spec"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.ends_with(".md") {
                true => spec.pages.push(Page::parse(&name, &fs::read_to_string(&path)?)),
                false => spec.others.push(name),
            }
        }
        spec.except(&fs::read_to_string(root.join("protocol-spec/exceptions.txt"))?);
        for path in files(root)? {
            let shown = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            // The checker's own tests cite what there isn't.
            if shown.starts_with("conformance/src/spec/") {
                continue;
            }
            let (found, faults) = match path.extension().and_then(|kind| kind.to_str()) {
                Some("rs" | "js" | "mjs" | "md") => citations::of_source(&shown, &fs::read_to_string(&path)?),
                Some("json") if shown.starts_with("conformance/vectors/") => {
                    let value = serde_json::from_str(&fs::read_to_string(&path)?)?;
                    citations::of_vectors(&shown, &value)
                }
                _ => continue,
            };
            spec.citations.extend(found);
            spec.faults.extend(faults);
        }
        Ok(spec)
    }

    /// Takes the text of the exceptions: in each line an id, `enforced` or `tested`, and the reason.
    pub fn except(&mut self, text: &str) {
        for (at, line) in
            text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        {
            let mut parts = line.splitn(3, ' ');
            let (id, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let reason = parts.next().unwrap_or_default().trim();
            let lack = match kind {
                "enforced" => Some(Lack::Enforced),
                "tested" => Some(Lack::Tested),
                _ => None,
            };
            match lack {
                // What nobody has got round to is no reason.
                Some(lack) if !reason.is_empty() && !reason.starts_with("open") => {
                    self.exceptions.insert((id.to_owned(), lack), reason.to_owned());
                }
                _ => self.faults.push(format!("exceptions.txt:{}: not `ID enforced|tested REASON`", at + 1)),
            }
        }
    }

    /// All that is wrong, a line each.
    pub fn check(&self) -> Vec<String> {
        let mut faults = self.faults.clone();
        let mut known = BTreeSet::new();
        let retired: BTreeSet<&str> =
            self.pages.iter().flat_map(|page| &page.retired).map(String::as_str).collect();
        for page in &self.pages {
            faults.extend(page.faults.iter().cloned());
            for sentence in &page.sentences {
                let (name, line, id) = (&page.name, sentence.line, sentence.id.as_str());
                if !known.insert(id) {
                    faults.push(format!("{name}:{line}: {id} is there twice"));
                }
                if retired.contains(id) {
                    faults.push(format!("{name}:{line}: {id} is retired"));
                }
            }
        }
        for page in &self.pages {
            for (line, id) in page.mentioned.iter().filter(|(_, id)| !known.contains(id.as_str())) {
                faults.push(format!("{}:{line}: there is no {id}", page.name));
            }
            for (line, link) in &page.links {
                let link = if link.starts_with('#') { format!("{}{link}", page.name) } else { link.clone() };
                if let Some(fault) = self.no_such_place(&link) {
                    faults.push(format!("{}:{line}: {fault}", page.name));
                }
            }
        }
        for Citation { what, place, .. } in &self.citations {
            let fault = match what.strip_prefix("protocol-spec/") {
                Some(link) => self.no_such_place(link),
                None if retired.contains(what.as_str()) => Some(format!("{what} is retired")),
                None => (!known.contains(what.as_str())).then(|| format!("there is no {what}")),
            };
            faults.extend(fault.map(|fault| format!("{place}: {fault}")));
        }
        self.check_coverage(&mut faults);
        faults
    }

    fn check_coverage(&self, faults: &mut Vec<String>) {
        let mut lacking = BTreeSet::new();
        for (page, sentence) in self.sentences().filter(|(_, sentence)| sentence.force == Force::Must) {
            for (lack, what) in
                [(Lack::Enforced, "no code cites"), (Lack::Tested, "no test, vector or behaviour cites")]
            {
                if self.is_covered(&sentence.id, lack) {
                    continue;
                }
                let key = (sentence.id.clone(), lack);
                if !self.exceptions.contains_key(&key) {
                    faults.push(format!("{}:{}: {what} {}", page.name, sentence.line, sentence.id));
                }
                lacking.insert(key);
            }
        }
        for (id, lack) in self.exceptions.keys().filter(|key| !lacking.contains(key)) {
            let kind = if *lack == Lack::Enforced { "enforced" } else { "tested" };
            faults.push(format!("exceptions.txt: {id} {kind} is no exception any more, or no MUST"));
        }
    }

    fn sentences(&self) -> impl Iterator<Item = (&Page, &Sentence)> {
        self.pages.iter().flat_map(|page| page.sentences.iter().map(move |sentence| (page, sentence)))
    }

    fn is_cited(&self, id: &str, role: Role) -> bool {
        self.citations.iter().any(|citation| citation.what == id && citation.role == role)
    }

    fn is_covered(&self, id: &str, lack: Lack) -> bool {
        match lack {
            Lack::Enforced => self.is_cited(id, Role::Enforces),
            Lack::Tested => {
                [Role::Test, Role::Vector, Role::Behaviour].iter().any(|role| self.is_cited(id, *role))
            }
        }
    }

    /// Why `page.md#anchor` leads nowhere, if it does.
    fn no_such_place(&self, link: &str) -> Option<String> {
        let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
        let page = self.pages.iter().find(|page| page.name == file);
        match (page, anchor) {
            (Some(page), Some(anchor)) => {
                let is_there = page.anchors.iter().any(|known| known == anchor);
                (!is_there).then(|| format!("{file} has no heading #{anchor}"))
            }
            (Some(_), None) => None,
            (None, _) => {
                (!self.others.iter().any(|other| other == file)).then(|| format!("there is no {file}"))
            }
        }
    }

    /// The table of coverage: for each page its MUSTs, how many of them are cited by whom, and how many citations are
    /// excepted; then its other sentences, and how many of these are cited by anybody.
    pub fn coverage(&self) -> String {
        let head = [
            "page",
            "MUST",
            "enforced",
            "tested",
            "by tests",
            "vectors",
            "behaviours",
            "excepted",
            "other",
            "cited",
        ];
        let mut rows = Vec::new();
        let mut total = [0; 9];
        for page in self.pages.iter().filter(|page| !page.sentences.is_empty()) {
            let (musts, others): (Vec<&Sentence>, Vec<&Sentence>) =
                page.sentences.iter().partition(|sentence| sentence.force == Force::Must);
            let by = |role| musts.iter().filter(|must| self.is_cited(&must.id, role)).count();
            let covered = |lack| musts.iter().filter(|must| self.is_covered(&must.id, lack)).count();
            let is_ours = |id: &str| page.sentences.iter().any(|sentence| sentence.id == id);
            let is_any = |id: &str| self.citations.iter().any(|citation| citation.what == id);
            let row = [
                musts.len(),
                covered(Lack::Enforced),
                covered(Lack::Tested),
                by(Role::Test),
                by(Role::Vector),
                by(Role::Behaviour),
                self.exceptions.keys().filter(|(id, _)| is_ours(id)).count(),
                others.len(),
                others.iter().filter(|other| is_any(&other.id)).count(),
            ];
            total.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
            rows.push((page.name.as_str(), row));
        }
        rows.push(("total", total));
        let line = |name: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>11}")).collect();
            format!("{name:<22}{cells}\n")
        };
        let mut table = line(head[0], &head[1..].iter().map(ToString::to_string).collect::<Vec<_>>());
        for (name, row) in rows {
            table += &line(name, &row.map(|n| n.to_string()));
        }
        table
    }
}

/// All files below a folder, in an order that doesn't change, without what is built or fetched.
fn files(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let is_skipped =
            ["target", "node_modules", "corpus", "artifacts"].iter().any(|skipped| name == *skipped);
        match entry.file_type()? {
            kind if kind.is_dir() && !is_skipped && !name.to_string_lossy().starts_with('.') => {
                found.extend(files(&entry.path())?);
            }
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# 5\n\n## Closing\n\nA MUST be. `[MUX-1]` B SHOULD be. `[MUX-2]`\n\n## Retired\n\n- MUX-3\n";

    fn spec(page: &str, sources: &[(&str, &str)], exceptions: &str) -> Spec {
        let mut spec = Spec { pages: vec![Page::parse("05-channels.md", page)], ..Spec::default() };
        for (path, text) in sources {
            let (found, faults) = citations::of_source(path, text);
            spec.citations.extend(found);
            spec.faults.extend(faults);
        }
        spec.except(exceptions);
        spec
    }

    const BOTH: [(&str, &str); 2] = [("party/src/a.rs", "//= MUX-1"), ("party/tests/a.rs", "//= MUX-1")];

    #[test]
    fn what_is_enforced_and_tested_is_well() {
        let spec = spec(PAGE, &BOTH, "");
        assert_eq!(spec.check(), [""; 0]);
        let total = spec.coverage();
        let figures: Vec<&str> = total.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(figures, ["total", "1", "1", "1", "1", "0", "0", "0", "1", "0"]);
    }

    #[test]
    fn a_must_that_nobody_cites_is_found() {
        let enforced = spec(PAGE, &BOTH[..1], "").check();
        assert_eq!(enforced, ["05-channels.md:5: no test, vector or behaviour cites MUX-1"]);
        assert_eq!(spec(PAGE, &BOTH[1..], "").check(), ["05-channels.md:5: no code cites MUX-1"]);
    }

    #[test]
    fn an_exception_needs_a_reason_and_a_need() {
        assert_eq!(spec(PAGE, &BOTH[..1], "# why\nMUX-1 tested can't be seen\n").check(), [""; 0]);
        assert_eq!(spec(PAGE, &BOTH, "MUX-1 tested can't be seen").check().len(), 1);
        assert_eq!(spec(PAGE, &BOTH, "MUX-2 tested can't be seen").check().len(), 1);
        for reason in ["", " open: nobody has looked"] {
            let text = format!("MUX-1 tested{reason}");
            assert!(spec(PAGE, &BOTH[..1], &text).check()[0].contains("REASON"), "{reason}");
        }
    }

    #[test]
    fn a_citation_of_what_is_not_there_or_not_any_more_is_found() {
        let cite = |what| [BOTH[0], BOTH[1], ("party/src/b.rs", what)];
        assert_eq!(spec(PAGE, &cite("//= MUX-9"), "").check(), ["party/src/b.rs:1: there is no MUX-9"]);
        assert_eq!(spec(PAGE, &cite("//= MUX-3"), "").check(), ["party/src/b.rs:1: MUX-3 is retired"]);
        assert_eq!(spec(PAGE, &cite("// protocol-spec/05-channels.md#closing"), "").check(), [""; 0]);
        for wrong in ["// protocol-spec/05-channels.md#opening", "// protocol-spec/15-none.md"] {
            assert_eq!(spec(PAGE, &cite(wrong), "").check().len(), 1, "{wrong}");
        }
    }

    #[test]
    fn an_id_that_is_there_twice_or_retired_is_found() {
        let twice = format!("C MAY be. `[MUX-1]`\n\n{PAGE}");
        assert_eq!(spec(&twice, &BOTH, "").check(), ["05-channels.md:7: MUX-1 is there twice"]);
        let again = format!("C MAY be. `[MUX-3]`\n\n{PAGE}");
        assert_eq!(spec(&again, &BOTH, "").check(), ["05-channels.md:1: MUX-3 is retired"]);
    }

    #[test]
    fn a_link_or_a_mention_that_leads_nowhere_is_found() {
        let links = format!("[a](#closing) [b](#none) [c](09-none.md)\n\nAs MUX-8 says.\n\n{PAGE}");
        assert_eq!(spec(&links, &BOTH, "").check().len(), 3);
    }
}
