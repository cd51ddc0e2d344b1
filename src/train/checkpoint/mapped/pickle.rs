//! The plain values of a pickle: whole numbers, texts, lists, and dictionaries in the order in
//! which they were filled, which PyTorch's optimizers count parameters by.
//!
//! Interprets the instructions that build values (Python's `pickletools` describes them) and
//! executes none: what is made by calling something, such as a tensor, is [`Value::Other`].
//! An `OrderedDict` alone is known by name. Values refer to each other by their number, so that a
//! pickle costs no more memory than its length allows, whatever it repeats.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use pytorch_reader::MAX_PICKLE_SIZE;
use zip::ZipArchive;

/// Values of one pickle, at most. Each tensor takes about twenty.
const MAX_VALUES: usize = 1 << 22;

/// A value; others are named by their number.
#[derive(Debug)]
enum Value {
    Int(i64),
    Text(String),
    /// A list or a tuple.
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// Something of Python's by its name: a class or a function.
    Global(String),
    Other,
}

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: usize,
}

/// One of the values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pickle: &'a Pickle,
    at: usize,
}

impl Pickle {
    /// The pickle of a file of `torch.save`, which is a zip file since PyTorch 1.6.
    ///
    /// # Errors
    /// A file that is no such file, and a pickle with instructions that PyTorch does not write.
    pub fn of(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        let foreign =
            |e| format!("{e}; a mapping needs a file that PyTorch 1.6 or newer wrote, a zip file");
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(foreign)?;
        let names = zip.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
        let pickles = names.filter(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
        let name = pickles.min_by_key(String::len).ok_or("it holds no data.pkl")?;
        let entry = zip.by_name(&name).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        entry.take(MAX_PICKLE_SIZE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if bytes.len() as u64 > MAX_PICKLE_SIZE {
            return Err(format!("its data.pkl has more than {} MB", MAX_PICKLE_SIZE >> 20));
        }
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine { bytes, at: 0, ..Machine::default() };
        match machine.run() {
            Some(root) => Ok(Self { values: machine.values, root }),
            None => Err(format!("its pickle cannot be read from byte {}", machine.instruction)),
        }
    }

    pub fn root(&self) -> Node<'_> {
        Node { pickle: self, at: self.root }
    }
}

impl<'a> Node<'a> {
    fn value(self) -> &'a Value {
        &self.pickle.values[self.at]
    }

    fn node(self, at: usize) -> Self {
        Self { at, ..self }
    }

    pub fn int(self) -> Option<i64> {
        if let Value::Int(value) = self.value() { Some(*value) } else { None }
    }

    /// A text, or a number as one: both are keys.
    pub fn key(self) -> Option<String> {
        match self.value() {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The items of a list or tuple; none of anything else.
    pub fn items(self) -> impl Iterator<Item = Node<'a>> {
        let items = if let Value::List(items) = self.value() { items.as_slice() } else { &[] };
        items.iter().map(move |at| self.node(*at))
    }

    /// The entries of a dictionary in order; none of anything else.
    pub fn entries(self) -> impl Iterator<Item = (String, Node<'a>)> {
        let pairs = if let Value::Dict(pairs) = self.value() { pairs.as_slice() } else { &[] };
        pairs.iter().filter_map(move |(key, at)| Some((self.node(*key).key()?, self.node(*at))))
    }

    /// The value that a dictionary has under a key.
    pub fn get(self, key: &str) -> Option<Node<'a>> {
        self.entries().filter(|(other, _)| other == key).last().map(|(_, value)| value)
    }

    /// [`Node::get`] for one key after the other.
    pub fn at(self, keys: &[&str]) -> Option<Node<'a>> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }
}

/// What reads a pickle: a stack of values, with marks between them.
#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the instruction begins that is being read.
    instruction: usize,
    values: Vec<Value>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: HashMap<u64, usize>,
}

impl<'a> Machine<'a> {
    /// The value that is left at the end; `None` for what is no pickle of PyTorch's.
    fn run(&mut self) -> Option<usize> {
        loop {
            self.instruction = self.at;
            let code = self.byte()?;
            if code == b'.' {
                return self.stack.pop();
            }
            if self.values.len() > MAX_VALUES || self.stack.len() > MAX_VALUES {
                return None;
            }
            self.literal(code).or_else(|| self.stack_move(code)).or_else(|| self.collect(code))?;
        }
    }

    /// Instructions that bring their value along.
    fn literal(&mut self, code: u8) -> Option<()> {
        let at = self.at;
        let value = match code {
            b'N' | 0x88 | 0x89 | b')' | b']' | b'}' | 0x8f => match code {
                b')' | b']' => Value::List(Vec::new()),
                b'}' => Value::Dict(Vec::new()),
                _ => Value::Other,
            },
            b'K' => Value::Int(self.unsigned(1)? as i64),
            b'M' => Value::Int(self.unsigned(2)? as i64),
            b'J' => Value::Int(i64::from(self.unsigned(4)? as u32 as i32)),
            0x8a => {
                let length = self.unsigned(1)?;
                self.long(length)?
            }
            b'G' => {
                self.take(8)?;
                Value::Other
            }
            0x8c | b'U' => self.text(1)?,
            b'X' | b'T' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.skipped(1)?,
            b'B' => self.skipped(4)?,
            0x8e | 0x96 => self.skipped(8)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Value::Global(format!("{module}.{name}"))
            }
            b'P' => {
                self.line()?;
                Value::Other
            }
            _ => {
                self.at = at;
                return None;
            }
        };
        self.push(value);
        Some(())
    }

    /// Instructions that move values about.
    fn stack_move(&mut self, code: u8) -> Option<()> {
        match code {
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'2' => self.stack.push(*self.stack.last()?),
            b'q' | b'r' | 0x94 => {
                let key = match code {
                    b'q' => self.unsigned(1)?,
                    b'r' => self.unsigned(4)?,
                    _ => self.memo.len() as u64,
                };
                self.memo.insert(key, *self.stack.last()?);
            }
            b'h' | b'j' => {
                let key = self.unsigned(if code == b'h' { 1 } else { 4 })?;
                self.stack.push(*self.memo.get(&key)?);
            }
            _ => return None,
        }
        Some(())
    }

    /// Instructions that make a value of others.
    fn collect(&mut self, code: u8) -> Option<()> {
        match code {
            b't' | b'l' => {
                let items = self.marked()?;
                self.push(Value::List(items));
            }
            0x85..=0x87 => {
                let first = self.stack.len().checked_sub(usize::from(code - 0x84))?;
                self.above_marks(first)?;
                let items = self.stack.split_off(first);
                self.push(Value::List(items));
            }
            b'd' => {
                let items = self.marked()?;
                self.push(Value::Dict(pairs(&items)));
            }
            b'a' | b'e' | 0x90 => {
                let items = if code == b'a' { vec![self.pop()?] } else { self.marked()? };
                let list = *self.stack.last()?;
                if let Value::List(list) = self.values.get_mut(list)? {
                    list.extend(items);
                }
            }
            b's' | b'u' => {
                let items = match code {
                    b's' => {
                        let value = self.pop()?;
                        vec![self.pop()?, value]
                    }
                    _ => self.marked()?,
                };
                let dict = *self.stack.last()?;
                if let Value::Dict(dict) = self.values.get_mut(dict)? {
                    dict.extend(pairs(&items));
                }
            }
            0x91 => drop(self.marked().map(|_| self.push(Value::Other))?),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |at: usize| match &self.values[at] {
                    Value::Text(text) => Some(text.as_str()),
                    _ => None,
                };
                let global = format!("{}.{}", text(module)?, text(name)?);
                self.push(Value::Global(global));
            }
            b'R' | 0x81 => self.called(1)?,
            0x92 => self.called(2)?,
            b'b' => drop(self.pop()?),
            b'Q' => {
                self.pop()?;
                self.push(Value::Other);
            }
            _ => return None,
        }
        Some(())
    }

    /// What calling something would make of its arguments, of which there are so many.
    fn called(&mut self, arguments: usize) -> Option<()> {
        for _ in 0..arguments {
            self.pop()?;
        }
        let callee = self.pop()?;
        let is_dict = matches!(
            &self.values[callee],
            Value::Global(name) if name == "collections.OrderedDict"
        );
        self.push(if is_dict { Value::Dict(Vec::new()) } else { Value::Other });
        Some(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Option<usize> {
        self.above_marks(self.stack.len().checked_sub(1)?)?;
        self.stack.pop()
    }

    /// Refuses to take values that stand before the last mark.
    fn above_marks(&self, first: usize) -> Option<()> {
        self.marks.last().is_none_or(|mark| first >= *mark).then_some(())
    }

    /// The values since the last mark.
    fn marked(&mut self) -> Option<Vec<usize>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// A number of so many bytes, the lowest first.
    fn unsigned(&mut self, bytes: u64) -> Option<u64> {
        let bytes = self.take(bytes)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A signed number of so many bytes; one that is too wide is [`Value::Other`].
    fn long(&mut self, length: u64) -> Option<Value> {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return Some(Value::Other);
        }
        let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [fill; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        Some(Value::Int(i64::from_le_bytes(whole)))
    }

    fn text(&mut self, bytes_of_length: u64) -> Option<Value> {
        let length = self.unsigned(bytes_of_length)?;
        Some(Value::Text(String::from_utf8_lossy(self.take(length)?).into_owned()))
    }

    fn skipped(&mut self, bytes_of_length: u64) -> Option<Value> {
        let length = self.unsigned(bytes_of_length)?;
        self.take(length)?;
        Some(Value::Other)
    }

    fn line(&mut self) -> Option<String> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        self.at += length + 1;
        Some(String::from_utf8_lossy(&rest[..length]).into_owned())
    }
}

/// Keys and values that stand one after the other.
fn pairs(items: &[usize]) -> Vec<(usize, usize)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

#[cfg(test)]
mod tests;
