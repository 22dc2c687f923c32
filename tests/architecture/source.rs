//! Reads source files and tells what the architecture asks about: paths, functions, names.

use proc_macro2::{Span, TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{Attribute, FnArg, Ident, Item, ItemMod, Signature, UseTree};

/// A file of `src/`.
pub struct Source {
    /// From the project's root: `src/routing/path.rs`.
    path: PathBuf,
    text: String,
    found: Vec<Found>,
}

/// Something in a file that a rule may object to. Lines count from 1.
#[derive(Debug)]
pub enum Found {
    /// The file itself; once.
    Start,
    /// A path into one of our own top-level modules.
    Module { line: usize, name: String, in_test: bool },
    /// A path that begins with the name of a crate, or of something in scope.
    Crate { line: usize, name: String, in_test: bool },
    /// A function with a body; its lines run from `fn` to the closing brace.
    Function { line: usize, name: String, lines: usize, parameters: usize },
    /// The name of a module or a type.
    Name { line: usize, name: String },
    /// A call of `unwrap` outside tests.
    Unwrap { line: usize },
}

impl Source {
    /// All `.rs` files below `folder`, which is `src`, sorted by path.
    pub fn read_all(folder: &Path) -> Vec<Self> {
        let mut paths = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the sources can be listed") {
                let path = entry.expect("the sources can be listed").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    paths.push(path);
                }
            }
        }
        paths.sort();
        assert!(paths.len() > 10, "the sources are not where they are looked for: {paths:?}");
        let root = folder.parent().expect("src is in a folder");
        let read = |path: &PathBuf| {
            let text = fs::read_to_string(path).expect("a source file is UTF-8");
            Self::parse(path.strip_prefix(root).expect("below the root"), &text)
        };
        paths.iter().map(read).collect()
    }

    /// A file with this path from the project's root, and this text.
    pub fn parse(path: &Path, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let module = module_path(path);
        let name = module.last().cloned();
        let mut walk = Walk { found: vec![Found::Start], module, in_test: false };
        if let Some(name) = name {
            walk.found.push(Found::Name { line: 1, name });
        }
        walk.visit_file(&file);
        Self { path: path.to_owned(), text: text.to_owned(), found: walk.found }
    }

    /// The top-level module that the file belongs to; `lib` for the root itself.
    pub fn module(&self) -> &str {
        let first = self.path.iter().nth(1).and_then(|part| part.to_str()).expect("a path below src");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// `file:line`, as editors jump to.
    pub fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// `src/routing/path.rs` is `routing::path`, `src/routing/mod.rs` is `routing`, `src/lib.rs` the root.
fn module_path(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        path.with_extension("").iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

struct Walk {
    found: Vec<Found>,
    /// Where we are, from the root.
    module: Vec<String>,
    in_test: bool,
}

impl Walk {
    /// A path with its leading `crate`, `super` and `self` resolved.
    fn path(&mut self, segments: &[(String, Span)], leading_colon: bool) {
        let [(first, span), rest @ ..] = segments else { return };
        let line = span.start().line;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            name => {
                // A bare name is no path to anywhere, unless it stands in a `use` (which has two segments at
                // least, or a leading colon).
                if !rest.is_empty() || leading_colon {
                    self.found.push(Found::Crate { line, name: name.to_owned(), in_test: self.in_test });
                }
                return;
            }
        };
        if first == "super" {
            base.pop();
        }
        let mut rest = rest.iter().peekable();
        while rest.next_if(|(name, _)| name == "super").is_some() {
            base.pop();
        }
        let next = rest.peek().map(|(name, span)| (name.clone(), span.start().line));
        let (name, line) = match base.first() {
            Some(name) => (name.clone(), line),
            None => match next {
                Some(next) => next,
                None => return,
            },
        };
        self.found.push(Found::Module { line, name, in_test: self.in_test });
    }

    fn use_tree(&mut self, before: &mut Vec<(String, Span)>, tree: &UseTree, leading_colon: bool) {
        let mut leaf = |ident: &Ident| {
            before.push((ident.to_string(), ident.span()));
            self.path(before, true);
            before.pop();
        };
        match tree {
            UseTree::Name(name) => leaf(&name.ident),
            UseTree::Rename(rename) => leaf(&rename.ident),
            UseTree::Glob(_) => self.path(before, leading_colon),
            UseTree::Path(path) => {
                before.push((path.ident.to_string(), path.ident.span()));
                self.use_tree(before, &path.tree, leading_colon);
                before.pop();
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(before, tree, leading_colon));
            }
        }
    }

    /// Paths and `unwrap` in the arguments of a macro, which `syn` leaves as tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, c: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == c);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    if first == "unwrap" && at > 0 && is(at - 1, '.') && !self.in_test {
                        self.found.push(Found::Unwrap { line: first.span().start().line });
                    }
                    let mut path = vec![(first.to_string(), first.span())];
                    while is(at + 1, ':') && is(at + 2, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else { break };
                        path.push((next.to_string(), next.span()));
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.path(&path, false);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn function(&mut self, signature: &Signature, end: Span) {
        let line = signature.fn_token.span.start().line;
        self.found.push(Found::Function {
            line,
            name: signature.ident.to_string(),
            lines: end.end().line - line + 1,
            parameters: signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_))).count(),
        });
    }

    fn name(&mut self, ident: &Ident) {
        self.found.push(Found::Name { line: ident.span().start().line, name: ident.to_string() });
    }

    /// Visits something that may stand under `#[cfg(test)]` or `#[test]`.
    fn under(&mut self, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.in_test;
        self.in_test |= attributes.iter().any(is_test);
        visit(self);
        self.in_test = before;
    }
}

fn is_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("test")
        || attribute.path().segments.last().is_some_and(|last| last.ident == "test")
        || attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                list.tokens
                    .clone()
                    .into_iter()
                    .any(|token| matches!(token, TokenTree::Ident(i) if i == "test"))
            })
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Struct(item) => self.name(&item.ident),
            Item::Enum(item) => self.name(&item.ident),
            Item::Union(item) => self.name(&item.ident),
            Item::Trait(item) => self.name(&item.ident),
            Item::Type(item) => self.name(&item.ident),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.under(&module.attrs, |walk| {
            // A module in a file of its own is named by that file.
            if module.content.is_some() {
                walk.name(&module.ident);
            }
            walk.module.push(module.ident.to_string());
            visit::visit_item_mod(walk, module);
            walk.module.pop();
        });
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.under(&item.attrs, |walk| {
            walk.function(&item.sig, item.block.brace_token.span.close());
            visit::visit_item_fn(walk, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.under(&item.attrs, |walk| {
            walk.function(&item.sig, item.block.brace_token.span.close());
            visit::visit_impl_item_fn(walk, item);
        });
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.under(&item.attrs, |walk| visit::visit_item_impl(walk, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.under(&item.attrs, |walk| {
            if let Some(block) = &item.default {
                walk.function(&item.sig, block.brace_token.span.close());
            }
            visit::visit_trait_item_fn(walk, item);
        });
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.under(&item.attrs, |walk| {
            walk.use_tree(&mut Vec::new(), &item.tree, item.leading_colon.is_some());
        });
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> =
            path.segments.iter().map(|segment| (segment.ident.to_string(), segment.ident.span())).collect();
        self.path(&segments, path.leading_colon.is_some());
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {
        // `pub(super)` shows something, it does not use anything.
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && !self.in_test {
            self.found.push(Found::Unwrap { line: call.method.span().start().line });
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        self.tokens(found.tokens.clone());
        visit::visit_macro(self, found);
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {
        // Doc comments may speak of anything; derives and serde's paths are the crates of the macro.
    }
}
