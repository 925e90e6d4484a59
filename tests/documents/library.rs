//! The methods of `Tensor` and their documentation, read from the sources, rows of macro tables included.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{Attribute, Expr, ImplItem, Item, Lit, Meta, ReturnType, Type, Visibility};

/// A public method.
pub struct Method {
    /// The documentation in front of its examples and errors, on one line.
    pub text: String,
    /// The family: the file, or its folder, below `ops`; empty for methods from elsewhere.
    pub family: String,
    /// Whether it gives tensors that it had to compute.
    pub computes: bool,
}

/// All methods by name, and what the families' files say of themselves.
pub struct Library {
    pub methods: BTreeMap<String, Method>,
    pub families: BTreeMap<String, String>,
}

impl Library {
    /// Reads all sources of a folder.
    pub fn read(folder: &Path) -> Result<Library> {
        let mut library = Library { methods: BTreeMap::new(), families: BTreeMap::new() };
        library.read_folder(folder, folder)?;
        anyhow::ensure!(!library.methods.is_empty(), "no methods in {}", folder.display());
        Ok(library)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) -> Result<()> {
        for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                self.read_folder(root, &path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.read_file(root, &path).with_context(|| format!("reading {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, root: &Path, path: &Path) -> Result<()> {
        let file = syn::parse_file(&std::fs::read_to_string(path)?)?;
        let below = path.strip_prefix(root)?.with_extension("");
        let parts: Vec<&str> = below.iter().filter_map(|part| part.to_str()).collect();
        let family = match parts[..] {
            ["ops", family, ..] if family != "mod" => family,
            _ => "",
        };
        if matches!(parts[..], ["ops", _] | ["ops", _, "mod"]) && !family.is_empty() {
            self.families.insert(family.to_owned(), prose(&file.attrs));
        }
        for item in &file.items {
            match item {
                Item::Impl(block) if block.trait_.is_none() && is_tensor(&block.self_ty) => {
                    for item in &block.items {
                        let ImplItem::Fn(method) = item else { continue };
                        if matches!(method.vis, Visibility::Public(_)) {
                            let computes = gives_tensors(&method.sig.output);
                            self.add(method.sig.ident.to_string(), prose(&method.attrs), family, computes);
                        }
                    }
                }
                Item::Macro(call) if !call.mac.path.is_ident("macro_rules") => {
                    self.read_rows(call.mac.tokens.clone(), family);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The rows of a table: documentation, the name, and after a comma perhaps the name of the in-place method.
    fn read_rows(&mut self, tokens: TokenStream, family: &str) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut lines = Vec::new();
        let mut rest = &tokens[..];
        while let [first, after @ ..] = rest {
            rest = after;
            match (first, after) {
                (TokenTree::Punct(hash), [TokenTree::Group(group), after @ ..])
                    if hash.as_char() == '#' && group.delimiter() == Delimiter::Bracket =>
                {
                    lines.extend(doc_line(group.stream()));
                    rest = after;
                }
                (TokenTree::Ident(name), _) if !lines.is_empty() => {
                    let name = name.to_string();
                    if let [TokenTree::Punct(_), TokenTree::Ident(other), ..] = after
                        && *other == format!("{name}_")
                    {
                        self.add(format!("{name}_"), format!("`{name}` in place."), family, true);
                    }
                    self.add(name, first_part(&lines), family, true);
                    lines.clear();
                }
                _ => lines.clear(),
            }
        }
    }

    fn add(&mut self, name: String, text: String, family: &str, computes: bool) {
        self.methods.insert(name, Method { text, family: family.to_owned(), computes });
    }

    /// Whether there is such a method and it gives tensors.
    pub fn computes(&self, name: &str) -> bool {
        self.methods.get(name).is_some_and(|method| method.computes)
    }
}

fn is_tensor(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident("Tensor"))
}

/// Whether it returns a `Result` with tensors in it.
fn gives_tensors(output: &ReturnType) -> bool {
    let ReturnType::Type(_, ty) = output else { return false };
    let Type::Path(path) = &**ty else { return false };
    path.path.segments.last().is_some_and(|last| {
        last.ident == "Result" && {
            let words = quote::quote!(#last).to_string();
            words
                .split(|c: char| !c.is_alphanumeric())
                .any(|word| matches!(word, "Tensor" | "Self" | "Unique"))
        }
    })
}

fn doc_line(attribute: TokenStream) -> Option<String> {
    let attribute: Meta = syn::parse2(attribute).ok()?;
    let Meta::NameValue(pair) = attribute else { return None };
    match (pair.path.is_ident("doc"), pair.value) {
        (true, Expr::Lit(literal)) => match literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

fn prose(attributes: &[Attribute]) -> String {
    let lines: Vec<String> = attributes
        .iter()
        .filter_map(|attribute| doc_line(quote::ToTokens::to_token_stream(&attribute.meta)))
        .collect();
    first_part(&lines)
}

/// The lines in front of the first heading or example, on one line, links as plain code.
fn first_part(lines: &[String]) -> String {
    let text = lines
        .iter()
        .map(|line| line.trim())
        .take_while(|line| !line.starts_with('#') && !line.starts_with("```"));
    let mut text = text.collect::<Vec<_>>().join(" ");
    while let Some(at) = text.find("](") {
        // The address of a link.
        let Some(end) = text[at..].find(')') else { break };
        text.replace_range(at + 1..at + end + 1, "");
    }
    let text =
        text.replace("[`Tensor::", "`").replace("[`Error::", "`").replace("[`", "`").replace("`]", "`");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
