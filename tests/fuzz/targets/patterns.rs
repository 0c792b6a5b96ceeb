//! Go's `filepath.Match` and the matcher of `.dockerignore` against slow ones. Input: lines of patterns, and after each NUL a
//! path.

#![no_main]

use lapstrake::pattern::{PatternList, matches, read_ignorefile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (patterns, paths) = input.split_once('\0').unwrap_or((input, "a"));
    if patterns.len() > 200 || paths.len() > 200 {
        return;
    }
    let lines = read_ignorefile(patterns.as_bytes());
    assert!(lines.iter().map(Vec::len).sum::<usize>() <= patterns.len() + lines.len());
    let list = PatternList::parse_ignorefile(patterns.as_bytes());
    let rules = simple(&lines);
    for path in paths.split('\0') {
        go_match(patterns, path);
        let Ok(list) = &list else { continue };
        let excluded = list.excludes(path.as_bytes());
        if !is_clean(path) {
            continue;
        }
        // Inside of its directory the answer is the same, and each directory above that is excluded is entered.
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        assert_eq!(list.inside(dir.as_bytes()).excludes(name.as_bytes()), excluded, "{path:?} in {lines:?}");
        // What is taken back below a directory is announced for every directory above it.
        let parents = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        if !excluded {
            for parent in parents.filter(|parent| list.excludes(parent.as_bytes())) {
                let (dir, name) = parent.rsplit_once('/').unwrap_or(("", parent));
                assert!(list.may_reinclude_below(parent.as_bytes()), "{path:?} below {parent:?}");
                assert!(list.inside(dir.as_bytes()).may_reinclude_below(name.as_bytes()), "{path:?} below {parent:?}, inside");
            }
        }
        if let Some(rules) = &rules {
            assert_eq!(excluded, slow_excludes(rules, path), "{path:?} in {lines:?}");
        }
    }
});

fn is_clean(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// `filepath.Match` by its definition, every possibility tried.
fn go_match(pattern: &str, name: &str) {
    let answer = matches(pattern.as_bytes(), name.as_bytes());
    let pattern: Vec<char> = pattern.chars().collect();
    if pattern.len() > 40 || name.len() > 60 || pattern.contains(&'[') {
        return;
    }
    let escaped_end = pattern.iter().rev().take_while(|ch| **ch == '\\').count() % 2 == 1;
    assert_eq!(answer.is_err(), escaped_end, "{pattern:?}");
    if let Ok(answer) = answer {
        let mut tokens = Vec::new();
        let mut rest = pattern.iter().copied();
        while let Some(ch) = rest.next() {
            tokens.push(match ch {
                '*' => Token::Star,
                '?' => Token::Class(vec![('/', '/')], true),
                '\\' => Token::Is(rest.next().expect("checked above")),
                _ => Token::Is(ch),
            });
        }
        assert_eq!(answer, whole(&tokens, &name.chars().collect::<Vec<_>>()), "{pattern:?} on {name:?}");
    }
}

/// A piece of the regular expression that moby/patternmatcher writes.
enum Token {
    Is(char),
    Class(Vec<(char, char)>, bool),
    /// `[^/]*`
    Star,
    /// `.*`
    All,
    /// `(.*/)?`
    Dirs,
}

/// A pattern as moby/patternmatcher reads it.
struct Rule {
    exception: bool,
    tokens: Vec<Token>,
}

/// `None` where a line holds what this reference does not know.
fn simple(lines: &[Vec<u8>]) -> Option<Vec<Rule>> {
    let mut rules = Vec::new();
    for line in lines {
        let line = std::str::from_utf8(line).ok()?;
        let (exception, body) = line.strip_prefix('!').map_or((false, line), |body| (true, body));
        if body.trim() != body || body.starts_with('!') || !is_clean(body) {
            return None;
        }
        rules.push(Rule { exception, tokens: tokens(body)? });
    }
    Some(rules)
}

fn tokens(body: &str) -> Option<Vec<Token>> {
    // Without any of these and at most `**` at its ends it is a comparison of text.
    let inner = body.strip_prefix("**").unwrap_or(body);
    let inner = inner.strip_suffix("**").unwrap_or(inner);
    let as_text = !inner.contains(['*', '?', '[', ']', '\\']);
    if body.contains(['^', '\\', ']']) || (as_text && body.contains("**") && !body.starts_with("**/") && !body.ends_with("/**")) {
        return None;
    }
    let mut tokens = Vec::new();
    let mut rest = body;
    while let Some(ch) = rest.chars().next() {
        rest = &rest[ch.len_utf8()..];
        match ch {
            '*' if rest.starts_with('*') => {
                rest = &rest[1..];
                rest = rest.strip_prefix('/').unwrap_or(rest);
                // A suffix that begins with a slash matches behind any text, and at the head without it: the same as this.
                tokens.push(if rest.is_empty() { Token::All } else { Token::Dirs });
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::Class(vec![('/', '/')], true)),
            '[' => return None,
            _ => tokens.push(Token::Is(ch)),
        }
    }
    Some(tokens)
}

/// Do the tokens match all of the text? A table of all (token, position).
fn whole(tokens: &[Token], text: &[char]) -> bool {
    let (rows, columns) = (tokens.len(), text.len());
    let mut table = vec![vec![false; columns + 2]; rows + 1];
    table[rows][columns] = true;
    for row in (0..rows).rev() {
        for column in (0..=columns).rev() {
            let here = text.get(column).copied();
            table[row][column] = match &tokens[row] {
                Token::Is(own) => here == Some(*own) && table[row + 1][column + 1],
                Token::Class(ranges, negated) => {
                    let takes = here.is_some_and(|ch| ranges.iter().any(|(low, high)| (*low..=*high).contains(&ch)) != *negated);
                    takes && table[row + 1][column + 1]
                }
                Token::Star => table[row + 1][column] || (here.is_some_and(|ch| ch != '/') && table[row][column + 1]),
                Token::All => (column..=columns).any(|end| table[row + 1][end]),
                Token::Dirs => table[row + 1][column] || (column..columns).any(|end| text[end] == '/' && table[row + 1][end + 1]),
            };
        }
    }
    table[0][0]
}

/// The last pattern that matches the path or one of its parents decides.
fn slow_excludes(rules: &[Rule], path: &str) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let heads: Vec<Vec<char>> = ends.map(|end| path[..end].chars().collect()).collect();
    rules.iter().filter(|rule| heads.iter().any(|head| whole(&rule.tokens, head))).last().is_some_and(|rule| !rule.exception)
}
