//! The library of WGSL functions. A kernel's source contains exactly those that it calls.
//!
//! The files under `shaders/` define each function once over the types F, I, U, B and L (f32, i32, u32, bool
//! and 64-bit integers), and D and Q (f64 and 64-bit words, on devices that have them). `name` is the
//! function's instance over scalars, and `name4` its instance over vectors of four.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A function of the library, instantiated over scalars or over vectors.
struct LibraryFunction {
    source: String,
    /// The functions and structs of the library that its source names.
    uses: Vec<String>,
    /// Its position in the library, by which a kernel's functions are ordered.
    place: usize,
}

static LIBRARY: LazyLock<HashMap<String, LibraryFunction>> = LazyLock::new(library);

const GENERIC: [&str; 9] = [
    include_str!("../../shaders/int.wgsl"),
    include_str!("../../shaders/int64.wgsl"),
    include_str!("../../shaders/float.wgsl"),
    include_str!("../../shaders/convert.wgsl"),
    include_str!("../../shaders/philox.wgsl"),
    include_str!("../../shaders/normal.wgsl"),
    include_str!("../../shaders/reduce.wgsl"),
    include_str!("../../shaders/sort.wgsl"),
    include_str!("../../shaders/double.wgsl"),
];
/// Files whose functions are written out for scalars and for vectors.
const CONCRETE: [&str; 3] = [
    include_str!("../../shaders/vector.wgsl"),
    include_str!("../../shaders/access.wgsl"),
    include_str!("../../shaders/two_over_pi.wgsl"),
];

/// The names of types in the files, and the types that they stand for over scalars and over vectors.
const TYPES: [(&str, &str, &str); 13] = [
    ("F", "f32", "vec4<f32>"),
    ("I", "i32", "vec4<i32>"),
    ("U", "u32", "vec4<u32>"),
    ("B", "bool", "vec4<bool>"),
    ("L", "I64", "I64x4"),
    ("LL", "I64Pair", "I64x4Pair"),
    ("FI", "Angle", "Angle4"),
    ("UUUU", "Words", "Words4"),
    ("BEST", "Best", "Best4"),
    ("BEST64", "Best64", "Best64x4"),
    ("D", "f64", "vec4<f64>"),
    ("Q", "u64", "vec4<u64>"),
    ("DI", "Angle64", "Angle64x4"),
];

const STRUCTS: [(&str, &str); 14] = [
    ("I64", "struct I64 {\n    lo: u32,\n    hi: u32,\n}"),
    ("I64x4", "struct I64x4 {\n    lo: vec4<u32>,\n    hi: vec4<u32>,\n}"),
    ("I64Pair", "struct I64Pair {\n    a: I64,\n    b: I64,\n}"),
    ("I64x4Pair", "struct I64x4Pair {\n    a: I64x4,\n    b: I64x4,\n}"),
    ("Angle", "struct Angle {\n    f: f32,\n    i: i32,\n}"),
    ("Angle4", "struct Angle4 {\n    f: vec4<f32>,\n    i: vec4<i32>,\n}"),
    ("Best", "struct Best {\n    key: u32,\n    at: u32,\n}"),
    ("Best4", "struct Best4 {\n    key: vec4<u32>,\n    at: vec4<u32>,\n}"),
    ("Best64", "struct Best64 {\n    key: I64,\n    at: u32,\n}"),
    ("Best64x4", "struct Best64x4 {\n    key: I64x4,\n    at: vec4<u32>,\n}"),
    ("Words", "struct Words {\n    x: u32,\n    y: u32,\n    z: u32,\n    w: u32,\n}"),
    (
        "Words4",
        "struct Words4 {\n    x: vec4<u32>,\n    y: vec4<u32>,\n    z: vec4<u32>,\n    w: vec4<u32>,\n}",
    ),
    ("Angle64", "struct Angle64 {\n    f: f64,\n    i: i32,\n}"),
    ("Angle64x4", "struct Angle64x4 {\n    f: vec4<f64>,\n    i: vec4<i32>,\n}"),
];

/// The source of all functions and structs that `source` uses, directly or not, in a fixed order.
pub(super) fn functions_for(source: &str) -> String {
    let mut found: HashMap<&str, &LibraryFunction> = HashMap::new();
    let mut open: Vec<&str> = tokens(source).collect();
    while let Some(name) = open.pop() {
        if let Some((name, function)) = LIBRARY.get_key_value(name)
            && found.insert(name, function).is_none()
        {
            open.extend(function.uses.iter().map(String::as_str));
        }
    }
    let mut functions: Vec<&LibraryFunction> = found.into_values().collect();
    functions.sort_by_key(|function| function.place);
    functions.iter().map(|function| format!("{}\n\n", function.source)).collect()
}

fn library() -> HashMap<String, LibraryFunction> {
    let mut sources: Vec<(String, String)> =
        STRUCTS.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).collect();
    let generic: Vec<&str> = GENERIC.iter().flat_map(|file| blocks(file)).collect();
    let concrete: Vec<&str> = CONCRETE.iter().flat_map(|file| blocks(file)).collect();
    let written: Vec<&str> = concrete.iter().filter_map(|text| function_name(text)).collect();
    let paired = written.iter().filter(|name| written.contains(&&*format!("{name}4")));
    let names: Vec<&str> =
        generic.iter().filter_map(|text| function_name(text)).chain(paired.copied()).collect();
    for text in &generic {
        for vector in [false, true] {
            let instance = rewrite(text, |token| {
                if let Some((_, scalar, four)) = TYPES.iter().find(|(name, ..)| *name == token) {
                    return Some((if vector { four } else { scalar }).to_string());
                }
                (vector && names.contains(&token)).then(|| format!("{token}4"))
            });
            if let Some(name) = function_name(&instance) {
                sources.push((name.to_owned(), instance.clone()));
            }
        }
    }
    for text in concrete {
        if let Some(name) = function_name(text) {
            sources.push((name.to_owned(), text.to_owned()));
        }
    }
    let known: Vec<String> = sources.iter().map(|(name, _)| name.clone()).collect();
    let function = |(place, (name, source)): (usize, (String, String))| {
        let mut uses: Vec<String> = tokens(&source)
            .filter(|token| *token != name && known.iter().any(|k| k == token))
            .map(str::to_owned)
            .collect();
        uses.sort();
        uses.dedup();
        (name, LibraryFunction { source, uses, place })
    };
    sources.into_iter().enumerate().map(function).collect()
}

/// The functions of a file, each with the comments directly above it. Functions are separated by empty lines.
fn blocks(file: &str) -> impl Iterator<Item = &str> {
    file.split("\n\n").map(str::trim).filter(|text| function_name(text).is_some())
}

fn function_name(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("fn "))?;
    line.strip_prefix("fn ")?.split('(').next()
}

const fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of a source, without its comments.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(line));
    code.flat_map(|line| line.split(|c| !in_word(c))).filter(|word| !word.is_empty())
}

/// The source with words replaced, except in comments.
fn rewrite(text: &str, replace: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        let (code, comment) = line.find("//").map_or((line, ""), |at| line.split_at(at));
        let mut rest = code;
        while let Some(start) = rest.find(in_word) {
            result.push_str(&rest[..start]);
            let word = &rest[start..];
            let end = word.find(|c| !in_word(c)).unwrap_or(word.len());
            // A member of a struct keeps its name.
            let member = result.ends_with('.');
            match replace(&word[..end]).filter(|_| !member) {
                Some(new) => result.push_str(&new),
                None => result.push_str(&word[..end]),
            }
            rest = &word[end..];
        }
        result.push_str(rest);
        result.push_str(comment);
        result.push('\n');
    }
    result.truncate(result.trim_end().len());
    result
}
