use std::time::{Duration, Instant};

use super::*;

/// Without optimization, and on machines that do other things as well.
const SOON: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1_000 } else { 200 });

fn survives(text: &str) {
    let started = Instant::now();
    let (condition, problems) = Condition::parse(text, &lists());
    assert_eq!(condition.is_none(), problems.iter().any(|problem| problem.level == Level::Error), "{text:?}");
    for problem in &problems {
        assert!(text.get(problem.span.clone()).is_some(), "{text:?}: {problem:?}");
        assert!(!problem.message.is_empty() && problem.message.len() < 6_000, "{text:?}: {problem:?}");
    }
    if let Some(condition) = condition {
        for event in [chmod(), exec()] {
            // A condition that passed the check can lack a value, but not be of a wrong type.
            assert_ne!(condition.eval(&event), Err(EvalError::NoResult), "{text:?}");
        }
    }
    assert!(started.elapsed() < SOON, "{:?}: {text:?}", started.elapsed());
}

#[test]
fn deep_and_long_texts_are_answered() {
    let repeated = |unit: &str, end: &str| {
        let mut text = unit.repeat((MAX_TEXT - end.len()) / unit.len());
        text.push_str(end);
        text
    };
    for text in [
        "(",
        "!",
        "-",
        "[",
        "{",
        "a?b:",
        "a.",
        "a+",
        "a[",
        "a in ",
        "f(",
        "1<",
        "a&&",
        "a||",
        "''+",
        "-1-",
        "!-",
        "{'a':",
        "a.b(",
        "?",
        ":",
        "'",
        "\"\"\"",
        "r'\\",
        "//",
        "\\",
        "`",
        "é",
        "\0",
        "process.args.exists(a,",
        "process.args.map(a,",
        "has(",
        "(1)+",
        "a ? (",
    ]
    .iter()
    .flat_map(|unit| [repeated(unit, ""), repeated(unit, "a"), repeated(unit, "true")])
    {
        survives(&text);
    }
    for depth in [8, 16, 31, 32, 33, 200] {
        survives(&format!("{}true{}", "(".repeat(depth), ")".repeat(depth)));
        survives(&format!("{}true", "!".repeat(depth)));
        survives(&format!("{}a{}", "string(".repeat(depth), ")".repeat(depth)));
        survives(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
        survives(&format!("{}true", "true?false:".repeat(depth)));
        survives(&format!("{}true{}", "(true?".repeat(depth), ":false)".repeat(depth)));
        survives(&format!("{} > 0", vec!["process.pid"; depth].join(" + ")));
        survives(&vec!["process.pid == 1"; depth].join(" || "));
    }
    survives(&"x".repeat(1 << 20));
}

#[test]
fn brackets_may_be_32_deep() {
    let nested = |depth: usize| format!("{}has(file.path){}", "(".repeat(depth - 1), ")".repeat(depth - 1));
    assert!(Condition::parse(&nested(32), &lists()).0.is_some());
    assert_eq!(Condition::parse(&nested(33), &lists()).1[0].message, "the condition is nested more than 32 deep");
}

#[test]
fn patterns_are_bounded() {
    for pattern in ["(a{1000}){1000}", "((((a*)*)*)*)*", "\\\\pL{500}", "(?:", "[", "a{,}", "(?P<n>a)\\\\1", "x{100}{100}"] {
        survives(&format!("process.exe.matches('{pattern}')"));
        survives(&format!("glob(process.exe, '{pattern}')"));
    }
    survives(&format!("glob(process.exe, '{}')", "{a,".repeat(300)));
    survives(&format!("glob(process.exe, '{}{}')", "{a,".repeat(200), "}".repeat(200)));
    survives(&format!("glob(process.exe, '{}')", "**".repeat(1000)));
}

/// Pseudo-random numbers from a fixed seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }
}

const WORDS: [&str; 71] = [
    "process",
    ".exe",
    ".args",
    "file",
    ".mode",
    ".path",
    ".old_mode",
    ".to",
    ".flags",
    "kubernetes",
    ".labels",
    ".app",
    "lists",
    ".shells",
    "type",
    "exec",
    "a",
    "b",
    "x",
    "has(",
    "size(",
    "hasBits(",
    "looserThan(",
    "glob(",
    ".matches(",
    ".startsWith(",
    ".exists(a,",
    ".all(x,",
    ".map(b,",
    ".filter(x,",
    ".exists_one(a,",
    "int(",
    "string(",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "?",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    " in ",
    "0",
    "1",
    "1u",
    "1.5",
    "9223372036854775807",
    "'a'",
    "\"0644\"",
    "b'x'",
    "r'\\d'",
    "null",
    "true",
    "false",
    "\n",
    "é",
    ".",
    "// a\n",
];

const VALID: [&str; 10] = [
    "process.exe != \"/usr/bin/kubelet\"",
    "type == 'file' && file.op in ['chmod', 'chown'] || process.args.exists(a, a.startsWith('-'))",
    "hasBits(file.mode, '0002') ? file.path.matches('^/etc/[a-z]+') : glob(file.path, '/etc/**')",
    "process.ancestors.exists(a, process.args.all(b, a.exe != b)) && !has(kubernetes.labels.app)",
    "size(process.args.map(a, a + 'x')) > 3 && int(file.size) - 1 >= -5 % 3",
    "kubernetes.labels['a'] == 'b' || process.args[0] == lists.shells[1] || process.exe in lists.shells",
    "{'a': 1}['a'] == process.pid && [1, 2].exists(x, x == process.uid)",
    "process.pid < 1.5 || process.pid >= 2u || double(file.size) > 1.0 || int(2.5) == 2 || string(true) == string(1u)",
    "process.args.exists(a, [a] == process.args.filter(b, a != b)) && process.args.all(x, x in process.args)",
    "process.args == ['a', 'b'] || [1.5, 2.0][0] > 1.0 || string(process.uid) < 'a'",
];

#[test]
fn random_and_damaged_texts_are_answered() {
    let mut random = Random(4);
    let end = Instant::now() + Duration::from_secs(5);
    let mut texts = 0;
    while Instant::now() < end {
        let text = if texts % 2 == 0 {
            (0..=random.below(24)).map(|_| random.pick(&WORDS)).collect()
        } else {
            let mut text: Vec<char> = random.pick(&VALID).chars().collect();
            for _ in 0..=random.below(3) {
                let at = random.below(text.len());
                match random.below(4) {
                    0 => drop(text.remove(at)),
                    1 => text.insert(at, char::from(u8::try_from(random.below(128)).unwrap())),
                    2 => drop(text.splice(at..at, random.pick(&WORDS).chars())),
                    _ => {
                        let other = at + random.below(text.len() - at);
                        text.swap(at, other);
                    }
                }
            }
            text.into_iter().collect::<String>()
        };
        survives(&text);
        crate::template::Template::parse(&text.replace(['(', '['], "{{").replace([')', ']'], "}}"));
        texts += 1;
    }
    assert!(texts > 100, "{texts}");
}
