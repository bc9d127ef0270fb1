//! What docs/install.md has between fences.

/// A block of a language, and the heading that it stands under.
pub(crate) struct Block {
    pub(crate) section: String,
    pub(crate) language: String,
    pub(crate) text: String,
}

/// The blocks of the page, in order. One that is part of a list stands further right.
pub(crate) fn blocks() -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let (mut section, mut open) = (String::new(), None::<usize>);
    for line in include_str!("../../docs/install.md").lines() {
        let indent = line.len() - line.trim_start().len();
        match (open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                found.push(Block { section: section.clone(), language: language.to_owned(), text: String::new() });
                open = Some(indent);
            }
            (Some(_), Some(_)) => open = None,
            (Some(indent), None) => {
                let block = found.last_mut().expect("it was opened");
                block.text.push_str(line.get(indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {
                if let Some((_, heading)) = line.split_once("# ").filter(|(marks, _)| marks.chars().all(|it| it == '#'))
                {
                    heading.clone_into(&mut section);
                }
            }
        }
    }
    found
}

impl Block {
    /// What is typed, each with its section: a `$` begins a command, and what follows without one belongs to it.
    pub(crate) fn commands(&self) -> Vec<(String, String)> {
        let all = self.text.strip_prefix("$ ").expect("a block begins with a command");
        all.split("\n$ ").map(|command| (self.section.clone(), command.trim_end().to_owned())).collect()
    }
}
