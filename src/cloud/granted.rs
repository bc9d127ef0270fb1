//! What Azure says that we may do somewhere, and whether that is enough for an action.

/// What one role assignment grants: its role's actions, and what the role takes out again. `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Granted {
    /// As in `Microsoft.Compute/*/read`.
    pub actions: Vec<String>,
    /// Taken out of this assignment's actions, not out of another's.
    pub not_actions: Vec<String>,
}

impl Granted {
    /// Whether one of these assignments grants the action.
    #[must_use]
    pub fn any_allows(all: &[Self], action: &str) -> bool {
        let fits = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, action));
        all.iter().any(|one| fits(&one.actions) && !fits(&one.not_actions))
    }
}

/// Azure does not mind the case of an action.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| action.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_any_text_and_any_case() {
        let read = "Microsoft.Compute/virtualMachineScaleSets/read";
        for good in ["*", "*/read", "microsoft.compute/*", "Microsoft.Compute/*/READ", read, "*Compute*Sets*"] {
            assert!(matches(good, read), "{good}");
        }
        for bad in
            ["", "*/write", "Microsoft.Compute/virtualMachineScaleSets", "Microsoft.Network/*", "*/read/*", "*/rea"]
        {
            assert!(!matches(bad, read), "{bad}");
        }
        // The same text must not count twice.
        assert!(!matches("aba*aba", "aba"));
        assert!(!matches("a*b*b", "ab"));
    }

    #[test]
    fn what_a_role_takes_out_another_may_grant() {
        let all_but_writes = Granted { actions: vec!["*".into()], not_actions: vec!["*/write".into()] };
        let disks = Granted { actions: vec!["Microsoft.Compute/disks/*".into()], not_actions: vec![] };
        let write = "Microsoft.Compute/disks/write";
        assert!(!Granted::any_allows(std::slice::from_ref(&all_but_writes), write));
        assert!(Granted::any_allows(std::slice::from_ref(&all_but_writes), "Microsoft.Compute/disks/read"));
        assert!(Granted::any_allows(&[all_but_writes, disks], write));
        assert!(!Granted::any_allows(&[], write));
    }
}
