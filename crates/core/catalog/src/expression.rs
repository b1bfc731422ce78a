//! Expressions of a class file: parsed with the place of each mistake, resolved against the names of the class.

use crate::Quantity;

/// An expression in f64 over one reading.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is what it is called")]
pub enum Expr {
    Number(f64),
    /// Index into the class's parameters.
    Parameter(usize),
    Quantity(Quantity),
    /// `mean60(x)` and its kin.
    Window(Statistic, Quantity),
    Negate(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// `abs` and `sqrt` take one argument, `min` and `max` two or more.
    Call(Function, Vec<Expr>),
}

/// A statistic of a 60 s window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is what it is called")]
pub enum Statistic {
    Mean,
    /// Population standard deviation.
    Std,
    Min,
    Max,
    /// Least squares, per minute.
    Slope,
}

/// `+ - * /`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is what it is called")]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// The functions of one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is what it is called")]
pub enum Function {
    Abs,
    Min,
    Max,
    Sqrt,
}

/// Names that stand for functions or constants, so that no id may take them.
pub(crate) const WORDS: [&str; 10] =
    ["pi", "abs", "min", "max", "sqrt", "mean60", "std60", "min60", "max60", "slope60"];

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Parameter(usize),
    Quantity(Quantity),
}

/// A mistake in an expression: byte within its text, what, hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExprMistake {
    pub at: usize,
    pub message: String,
    pub hint: Option<String>,
}

/// How deep parentheses and signs may nest.
const DEPTH: usize = 64;

/// Parses an expression; `resolve` gives a name's meaning, `known` lists names for hints.
pub(crate) fn parse(text: &str, resolve: &dyn Fn(&str) -> Option<Name>, known: &[&str]) -> Result<Expr, ExprMistake> {
    let mut parser = Parser { text, at: 0, depth: 0, resolve, known };
    let expr = parser.sum()?;
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.mistake(format!("`{}` does not belong here", parser.peek_text()), None));
    }
    Ok(expr)
}

impl Expr {
    /// Calls `each` with this expression and every one inside it.
    pub fn walk(&self, each: &mut dyn FnMut(&Expr)) {
        each(self);
        match self {
            Expr::Negate(inner) => inner.walk(each),
            Expr::Binary(_, left, right) => {
                left.walk(each);
                right.walk(each);
            }
            Expr::Call(_, arguments) => arguments.iter().for_each(|argument| argument.walk(each)),
            Expr::Number(_) | Expr::Parameter(_) | Expr::Quantity(_) | Expr::Window(..) => {}
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    resolve: &'a dyn Fn(&str) -> Option<Name>,
    known: &'a [&'a str],
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<Expr, ExprMistake> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.mistake(format!("the expression nests deeper than {DEPTH}"), None));
        }
        let mut left = self.product()?;
        while let Some(sign) = self.take_any(&['+', '-']) {
            let operator = if sign == '+' { Operator::Add } else { Operator::Subtract };
            left = Expr::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn product(&mut self) -> Result<Expr, ExprMistake> {
        let mut left = self.factor()?;
        while let Some(sign) = self.take_any(&['*', '/']) {
            let operator = if sign == '*' { Operator::Multiply } else { Operator::Divide };
            left = Expr::Binary(operator, Box::new(left), Box::new(self.factor()?));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Expr, ExprMistake> {
        self.blanks();
        let start = self.at;
        if self.take_any(&['-']).is_some() {
            self.depth += 1;
            if self.depth > DEPTH {
                return Err(self.mistake(format!("the expression nests deeper than {DEPTH}"), None));
            }
            let inner = self.factor()?;
            self.depth -= 1;
            return Ok(Expr::Negate(Box::new(inner)));
        }
        if self.take_any(&['(']).is_some() {
            let inner = self.sum()?;
            self.close()?;
            return Ok(inner);
        }
        match self.text[self.at..].chars().next() {
            None => Err(self.mistake("the expression ends where a value is expected".to_owned(), None)),
            Some('0'..='9' | '.') => self.number(),
            Some('a'..='z' | 'A'..='Z' | '_') => {
                let name = self.word();
                self.name(&name, start)
            }
            Some(_) => {
                let found = self.peek_text();
                let hint = "write numbers, names, + - * / ( ), pi, abs min max sqrt, mean60 std60 min60 max60 slope60";
                Err(self.mistake(format!("`{found}` is no part of an expression"), Some(hint.to_owned())))
            }
        }
    }

    fn number(&mut self) -> Result<Expr, ExprMistake> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            let exponent_sign =
                matches!(byte, b'+' | b'-') && matches!(bytes[self.at - 1], b'e' | b'E') && self.at > start;
            if !(byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E') || exponent_sign) {
                break;
            }
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        match digits.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Expr::Number(value)),
            _ => Err(ExprMistake { at: start, message: format!("`{digits}` is no number"), hint: None }),
        }
    }

    fn name(&mut self, name: &str, start: usize) -> Result<Expr, ExprMistake> {
        let statistic = match name {
            "mean60" => Some(Statistic::Mean),
            "std60" => Some(Statistic::Std),
            "min60" => Some(Statistic::Min),
            "max60" => Some(Statistic::Max),
            "slope60" => Some(Statistic::Slope),
            _ => None,
        };
        let function = match name {
            "abs" => Some(Function::Abs),
            "min" => Some(Function::Min),
            "max" => Some(Function::Max),
            "sqrt" => Some(Function::Sqrt),
            _ => None,
        };
        if name == "pi" {
            return Ok(Expr::Number(std::f64::consts::PI));
        }
        if statistic.is_some() || function.is_some() {
            self.open(name)?;
        }
        if let Some(statistic) = statistic {
            self.blanks();
            let inner_start = self.at;
            let inner = self.word();
            let quantity = match (self.resolve)(&inner) {
                Some(Name::Quantity(quantity)) => quantity,
                _ => {
                    let message = format!("{name} takes a channel or a derived quantity by its name");
                    return Err(ExprMistake { at: inner_start, message, hint: self.near(&inner) });
                }
            };
            self.close()?;
            return Ok(Expr::Window(statistic, quantity));
        }
        if let Some(function) = function {
            let mut arguments = vec![self.sum()?];
            while self.take_any(&[',']).is_some() {
                arguments.push(self.sum()?);
            }
            self.close()?;
            let fits = match function {
                Function::Abs | Function::Sqrt => arguments.len() == 1,
                Function::Min | Function::Max => arguments.len() >= 2,
            };
            if !fits {
                let wants =
                    if matches!(function, Function::Abs | Function::Sqrt) { "one value" } else { "two values or more" };
                return Err(ExprMistake {
                    at: start,
                    message: format!("{name} takes {wants}, here are {}", arguments.len()),
                    hint: None,
                });
            }
            return Ok(Expr::Call(function, arguments));
        }
        match (self.resolve)(name) {
            Some(Name::Parameter(at)) => Ok(Expr::Parameter(at)),
            Some(Name::Quantity(quantity)) => Ok(Expr::Quantity(quantity)),
            None => {
                let message = format!("there is no `{name}` that may stand here");
                Err(ExprMistake { at: start, message, hint: self.near(name) })
            }
        }
    }

    fn near(&self, name: &str) -> Option<String> {
        match crate::parse::did_you_mean(name, self.known.iter().copied().chain(WORDS)) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if self.known.is_empty() => None,
            None => Some(format!("there are {}", self.known.join(", "))),
        }
    }

    fn open(&mut self, name: &str) -> Result<(), ExprMistake> {
        match self.take_any(&['(']) {
            Some(_) => Ok(()),
            None => Err(self.mistake(format!("{name} needs its ( )"), None)),
        }
    }

    fn close(&mut self) -> Result<(), ExprMistake> {
        match self.take_any(&[')']) {
            Some(_) => Ok(()),
            None => Err(self.mistake("a ) is missing".to_owned(), None)),
        }
    }

    fn word(&mut self) -> String {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += length;
        rest[..length].to_owned()
    }

    fn take_any(&mut self, signs: &[char]) -> Option<char> {
        self.blanks();
        let sign = self.text[self.at..].chars().next().filter(|sign| signs.contains(sign))?;
        self.at += sign.len_utf8();
        Some(sign)
    }

    fn blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn peek_text(&self) -> String {
        self.text[self.at..].chars().take(12).collect()
    }

    fn mistake(&self, message: String, hint: Option<String>) -> ExprMistake {
        ExprMistake { at: self.at, message, hint }
    }
}
