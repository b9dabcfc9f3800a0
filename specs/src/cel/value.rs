//! The event as CEL's interpreter sees it: values that look into it only when an expression asks.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use cel::{
    ExecutionError,
    common::{
        traits::{self, Container, Indexer, Iterable, Sizer},
        types::{CelBool, CelDouble, CelInt, CelString, LIST_TYPE, MAP_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

use super::field::{self, Field, List, Object};

static OBJECT: Type = Type::new_struct_type("object");
static BUDGET: Type = Type::new_struct_type("budget");

/// A field as a value.
pub(super) fn of_field<'b, 'v, 'e: 'v>(field: Field<'e>) -> CowVal<'b, 'v> {
    match field {
        Field::Bool(value) => CowVal::owned(CelBool::from(value)),
        Field::Int(number) => CowVal::owned(CelInt::from(number)),
        Field::Double(number) => CowVal::owned(CelDouble::from(number)),
        Field::Text(text) => CowVal::owned(CelString::from(text)),
        Field::Made(text) => CowVal::owned(CelString::from(text)),
        Field::List(list) => CowVal::owned(EventList { list, items: OnceLock::new() }),
        Field::Map(map) => CowVal::owned(EventMap { map: Entries::Texts(map), keys: OnceLock::new() }),
        Field::Object(object) => CowVal::owned(EventObject(object)),
        Field::Json(map) => CowVal::owned(EventMap { map: Entries::Json(map), keys: OnceLock::new() }),
    }
}

/// A list that policies share, made for the question whether something is in it.
#[derive(Debug)]
pub(super) struct SharedList {
    items: Vec<CelString<'static>>,
    set: HashSet<String>,
}

impl SharedList {
    pub(super) fn new(items: &[String]) -> Self {
        Self { items: items.iter().map(|item| CelString::from(item.clone())).collect(), set: items.iter().cloned().collect() }
    }
}

/// How many more items an evaluation may go through.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    pub(super) const fn new(items: usize) -> Self {
        Self(AtomicUsize::new(items))
    }

    /// Whether more was asked for than there was.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Takes what going through a value costs; an error where too little is left.
    pub(super) fn spend(&self, value: &dyn Val) -> Result<(), ExecutionError> {
        let items = value.as_sizer().map_or(0, |sizer| usize::try_from(*sizer.size().inner()).unwrap_or(usize::MAX));
        let left = self.0.load(Ordering::Relaxed).saturating_sub(items);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { Err(ExecutionError::function_error("@range", "too many items")) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct EventList<'e> {
    list: List<'e>,
    /// Made when a comprehension goes through it: the interpreter wants references to values.
    items: OnceLock<Vec<Box<dyn Val + 'e>>>,
}

#[derive(Debug)]
struct EventMap<'e> {
    map: Entries<'e>,
    keys: OnceLock<Vec<CelString<'e>>>,
}

/// A map of an event, whatever it holds.
#[derive(Debug, Clone, Copy)]
enum Entries<'e> {
    Texts(&'e BTreeMap<String, String>),
    Json(&'e serde_json::Map<String, serde_json::Value>),
}

impl<'e> Entries<'e> {
    fn get(self, key: &str) -> Option<Field<'e>> {
        match self {
            Self::Texts(map) => map.get(key).map(|text| Field::Text(text)),
            Self::Json(map) => field::member(map, key),
        }
    }

    fn keys(self) -> Vec<CelString<'e>> {
        match self {
            Self::Texts(map) => map.keys().map(|key| CelString::from(key.as_str())).collect(),
            Self::Json(map) => map.keys().map(|key| CelString::from(key.as_str())).collect(),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Texts(map) => map.len(),
            Self::Json(map) => map.len(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct EventObject<'e>(Object<'e>);

/// Lends one value after the other.
struct Lend<'b, T>(std::slice::Iter<'b, T>);

impl<'b, 'v, T: Val + 'v> traits::Iterator<'b, 'v> for Lend<'b, T> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|item| item as _)
    }
}

/// Lends one boxed value after the other.
struct LendBoxed<'b, 'e>(std::slice::Iter<'b, Box<dyn Val + 'e>>);

impl<'b, 'v, 'e: 'v> traits::Iterator<'b, 'v> for LendBoxed<'b, 'e> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|item| &**item as _)
    }
}

impl Val for EventList<'_> {
    fn get_type(&self) -> &Type {
        &LIST_TYPE_STATIC
    }

    fn cel_type() -> &'static Type {
        &LIST_TYPE_STATIC
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self { list: self.list, items: OnceLock::new() })
    }
}

impl Container for EventList<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let Some(value) = value.downcast_ref::<CelString>() else { return Ok(false) };
        Ok(self.list.iter().any(|item| matches!(item, Field::Text(text) if text == value.inner())))
    }
}

impl Indexer for EventList<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let at = place(index)?;
        self.list.get(at).map(of_field).ok_or_else(|| out_of_bounds(at))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let at = place(index)?;
        self.list.get(at).map(|field| of_field(field).into_owned()).ok_or_else(|| out_of_bounds(at))
    }
}

impl Iterable for EventList<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn traits::Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        let items = self.items.get_or_init(|| self.list.iter().map(|field| of_field(field).into_owned()).collect());
        Box::new(LendBoxed(items.iter()))
    }
}

impl Sizer for EventList<'_> {
    fn size(&self) -> CelInt {
        size(self.list.len())
    }
}

impl Val for SharedList {
    fn get_type(&self) -> &Type {
        &LIST_TYPE_STATIC
    }

    fn cel_type() -> &'static Type {
        &LIST_TYPE_STATIC
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self { items: self.items.clone(), set: self.set.clone() })
    }
}

impl Container for SharedList {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(value.downcast_ref::<CelString>().is_some_and(|text| self.set.contains(text.inner())))
    }
}

impl Indexer for SharedList {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let at = place(index)?;
        self.items.get(at).map(|item| CowVal::Borrowed(item as &dyn Val)).ok_or_else(|| out_of_bounds(at))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

impl Iterable for SharedList {
    fn iter<'b, 'v>(&'b self) -> Box<dyn traits::Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Lend(self.items.iter()))
    }
}

impl Sizer for SharedList {
    fn size(&self) -> CelInt {
        size(self.items.len())
    }
}

impl Val for EventMap<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE_STATIC
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE_STATIC
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self { map: self.map, keys: OnceLock::new() })
    }
}

impl Container for EventMap<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(key.downcast_ref::<CelString>().is_some_and(|key| self.map.get(key.inner()).is_some()))
    }
}

impl Indexer for EventMap<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key = text(key)?;
        self.map.get(key).map(of_field).ok_or_else(|| ExecutionError::no_such_key(key))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key = text(key)?;
        self.map.get(key).map(|field| of_field(field).into_owned()).ok_or_else(|| ExecutionError::no_such_key(key))
    }
}

impl Iterable for EventMap<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn traits::Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        let keys = self.keys.get_or_init(|| self.map.keys());
        Box::new(Lend(keys.iter()))
    }
}

impl Sizer for EventMap<'_> {
    fn size(&self) -> CelInt {
        size(self.map.len())
    }
}

impl Val for EventObject<'_> {
    fn get_type(&self) -> &Type {
        &OBJECT
    }

    fn cel_type() -> &'static Type {
        &OBJECT
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Indexer for EventObject<'_> {
    fn get<'b, 'v>(&'b self, name: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = text(name)?;
        self.0.field(name).map(of_field).ok_or_else(|| ExecutionError::no_such_key(name))
    }

    fn steal<'v>(self: Box<Self>, name: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = text(name)?;
        self.0.field(name).map(|field| of_field(field).into_owned()).ok_or_else(|| ExecutionError::no_such_key(name))
    }
}

impl Val for Budget {
    fn get_type(&self) -> &Type {
        &BUDGET
    }

    fn cel_type() -> &'static Type {
        &BUDGET
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self(AtomicUsize::new(self.0.load(Ordering::Relaxed))))
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}

static LIST_TYPE_STATIC: Type = LIST_TYPE;
static MAP_TYPE_STATIC: Type = MAP_TYPE;

fn size(items: usize) -> CelInt {
    CelInt::from(i64::try_from(items).unwrap_or(i64::MAX))
}

fn place(index: &dyn Val) -> Result<usize, ExecutionError> {
    let index = index.downcast_ref::<CelInt>().map_or(-1, |index| *index.inner());
    usize::try_from(index).map_err(|_| ExecutionError::IndexOutOfBounds(index.into()))
}

fn out_of_bounds(at: usize) -> ExecutionError {
    ExecutionError::IndexOutOfBounds(i64::try_from(at).unwrap_or(i64::MAX).into())
}

fn text(value: &dyn Val) -> Result<&str, ExecutionError> {
    value
        .downcast_ref::<CelString>()
        .map(CelString::inner)
        .ok_or_else(|| ExecutionError::UnexpectedType { got: value.get_type().name().to_owned(), want: "string".to_owned() })
}
