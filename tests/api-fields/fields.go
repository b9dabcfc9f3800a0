package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"reflect"
	"runtime/debug"
	"sort"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const head = `# Fields of the messages of Kubernetes' API: their numbers in protobuf, their names and types in JSON.
# Written by tests/api-fields.sh from k8s.io/api %s.
# Kinds of an API version ("*": of all), with their message where it isn't PACKAGE.KIND:
#   = VERSION PACKAGE
#   KIND[=MESSAGE]
# Messages with their fields; a type without a package is of the same one:
#   : MESSAGE
#   NUMBER NAME[? absent if empty][! absent if zero] [[] list][{} map by text][* may be null]TYPE
# A name "." means that the fields of TYPE stand beside the others.
`

// Types that JSON shows in a way of their own.
var special = map[reflect.Type]string{
	reflect.TypeFor[metav1.Time]():          "time",
	reflect.TypeFor[metav1.MicroTime]():     "microtime",
	reflect.TypeFor[metav1.Duration]():      "duration",
	reflect.TypeFor[resource.Quantity]():    "quantity",
	reflect.TypeFor[intstr.IntOrString]():   "int-or-string",
	reflect.TypeFor[runtime.RawExtension](): "raw",
	reflect.TypeFor[metav1.FieldsV1]():      "raw",

	reflect.TypeFor[apiextensionsv1.JSON]():                              "raw",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrBool]():             "schema-or-bool",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrArray]():            "schema-or-list",
	reflect.TypeFor[apiextensionsv1.JSONSchemaPropsOrStringArray]():      "schema-or-strings",
	reflect.TypeFor[apiextensionsv1beta1.JSON]():                         "raw",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrBool]():        "schema-or-bool",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrArray]():       "schema-or-list",
	reflect.TypeFor[apiextensionsv1beta1.JSONSchemaPropsOrStringArray](): "schema-or-strings",
}

// A field of a message. `form` is what stands before the type's name.
type field struct {
	number     int
	name, form string
	scalar     string
	message    reflect.Type
}

type messages struct {
	fields map[reflect.Type][]field
	// Messages of the same fields are written once.
	written map[reflect.Type]reflect.Type
}

func writeFields(out io.Writer, kinds []kind) error {
	known := messages{fields: map[reflect.Type][]field{}}
	for _, kind := range kinds {
		if err := known.add(kind.of); err != nil {
			return fmt.Errorf("%s %s: %w", kind.version, kind.name, err)
		}
	}
	known.unite()
	version := "of an unknown version"
	if built, ok := debug.ReadBuildInfo(); ok {
		for _, module := range built.Deps {
			if module.Path == "k8s.io/api" {
				version = module.Version
			}
		}
	}
	fmt.Fprintf(out, head, version)
	homes := known.homes(kinds)
	last := ""
	for _, kind := range kinds {
		home := homes[kind.version]
		if kind.version != last {
			fmt.Fprintf(out, "\n= %s %s\n", kind.version, home)
			last = kind.version
		}
		switch message := name(known.written[kind.of]); message {
		case home + "." + kind.name:
			fmt.Fprintf(out, "%s\n", kind.name)
		default:
			fmt.Fprintf(out, "%s=%s\n", kind.name, message)
		}
	}
	var all []reflect.Type
	for message, written := range known.written {
		if message == written {
			all = append(all, message)
		}
	}
	sort.Slice(all, func(a, b int) bool { return name(all[a]) < name(all[b]) })
	for _, message := range all {
		fmt.Fprintf(out, "\n: %s\n", name(message))
		for _, field := range known.fields[message] {
			fmt.Fprintf(out, "%d %s %s%s\n", field.number, field.name, field.form, known.reference(field, message))
		}
	}
	return nil
}

func name(message reflect.Type) string {
	return home(message) + "." + message.Name()
}

// The package's last two parts, as API versions are called.
func home(message reflect.Type) string {
	folder, version := path.Split(message.PkgPath())
	return path.Join(path.Base(folder), version)
}

// The package of most of a version's messages.
func (known *messages) homes(kinds []kind) map[string]string {
	counts := map[string]map[string]int{}
	for _, kind := range kinds {
		if counts[kind.version] == nil {
			counts[kind.version] = map[string]int{}
		}
		counts[kind.version][home(known.written[kind.of])]++
	}
	homes := map[string]string{}
	for version, packages := range counts {
		for called, count := range packages {
			most := homes[version]
			if count > packages[most] || count == packages[most] && called < most {
				homes[version] = called
			}
		}
	}
	return homes
}

func (known *messages) reference(field field, from reflect.Type) string {
	if field.message == nil {
		return field.scalar
	}
	to := known.written[field.message]
	called := name(to)
	if to.PkgPath() == from.PkgPath() {
		called = to.Name()
	}
	if field.scalar != "" {
		return field.scalar + ":" + called
	}
	return called
}

func (known *messages) add(message reflect.Type) error {
	if _, there := known.fields[message]; there {
		return nil
	}
	if message.Kind() != reflect.Struct || showsItself(message) {
		return fmt.Errorf("%s is no plain message", message)
	}
	known.fields[message] = nil
	var fields []field
	for at := range message.NumField() {
		goField := message.Field(at)
		one, is, err := fieldOf(goField)
		if err == nil && is && one.message != nil {
			err = known.add(one.message)
		}
		if err != nil {
			return fmt.Errorf("%s.%s: %w", message, goField.Name, err)
		}
		if is {
			fields = append(fields, one)
		}
	}
	known.fields[message] = fields
	return nil
}

// Whether JSON shows it in a way of its own.
func showsItself(of reflect.Type) bool {
	marshaler := reflect.TypeFor[json.Marshaler]()
	return of.Implements(marshaler) || reflect.PointerTo(of).Implements(marshaler)
}

// What is in both protobuf and JSON.
func fieldOf(goField reflect.StructField) (field, bool, error) {
	numbered := strings.Split(goField.Tag.Get("protobuf"), ",")
	named := strings.Split(goField.Tag.Get("json"), ",")
	if len(numbered) < 2 {
		return field{}, false, nil
	}
	if named[0] == "-" {
		return field{}, false, fmt.Errorf("it is in protobuf, but not in JSON")
	}
	var one field
	if _, err := fmt.Sscan(numbered[1], &one.number); err != nil {
		return field{}, false, err
	}
	one.name = named[0]
	isInline := false
	for _, option := range named[1:] {
		switch option {
		case "omitempty":
			one.name += "?"
		case "omitzero":
			one.name += "!"
		case "inline":
			isInline = true
		default:
			return field{}, false, fmt.Errorf("the option %q of JSON is not known here", option)
		}
	}
	of := goField.Type
	if one.name == "" && (isInline || goField.Anonymous) && of.Kind() == reflect.Struct && special[of] == "" {
		one.name = "."
	}
	if strings.Trim(one.name, "?!") == "" {
		return field{}, false, fmt.Errorf("it has no name in JSON")
	}
	if of.Kind() == reflect.Map && of.Key().Kind() == reflect.String {
		one.form, of = "{}", of.Elem()
	} else if of.Kind() == reflect.Slice && of.Elem().Kind() != reflect.Uint8 && !isMessage(of) {
		one.form, of = "[]", of.Elem()
	}
	if of.Kind() == reflect.Pointer {
		one.form, of = one.form+"*", of.Elem()
	}
	if len(one.form) > 2 {
		return field{}, false, fmt.Errorf("%s is not known here", goField.Type)
	}
	// What the tags say of the form in protobuf isn't always so; samples show that the type decides.
	switch of.Kind() {
	case reflect.String:
		one.scalar = "string"
	case reflect.Bool:
		one.scalar = "bool"
	case reflect.Int32, reflect.Int64:
		one.scalar = "int"
	case reflect.Float64:
		one.scalar = "float"
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			one.scalar = "bytes"
		} else if isMessage(of) && of.Elem().Kind() == reflect.String {
			one.scalar = "strings"
		}
	case reflect.Struct:
		one.scalar = special[of]
		if strings.HasPrefix(one.scalar, "schema") {
			schema, _ := of.FieldByName("Schema")
			one.message = schema.Type.Elem()
		} else if one.scalar == "" {
			one.message = of
		}
	}
	if one.scalar == "" && one.message == nil {
		return field{}, false, fmt.Errorf("%s is not known here", goField.Type)
	}
	if special[of] == "" && of.Kind() != reflect.Slice && showsItself(of) {
		return field{}, false, fmt.Errorf("%s shows itself in JSON in a way that is not known here", of)
	}
	return one, true, nil
}

// Finds which messages have the same fields, of messages that have the same fields, however deep.
func (known *messages) unite() {
	class := map[reflect.Type]int{}
	for count := 0; ; {
		numbers := map[string]int{}
		next := map[reflect.Type]int{}
		for message, fields := range known.fields {
			var text strings.Builder
			fmt.Fprintf(&text, "%d\n", class[message])
			for _, field := range fields {
				fmt.Fprintf(&text, "%d %s %s%s", field.number, field.name, field.form, field.scalar)
				if field.message != nil {
					fmt.Fprintf(&text, ":%d", class[field.message])
				}
				text.WriteByte('\n')
			}
			number, there := numbers[text.String()]
			if !there {
				number = len(numbers)
				numbers[text.String()] = number
			}
			next[message] = number
		}
		class = next
		if len(numbers) == count {
			break
		}
		count = len(numbers)
	}
	// Of several, the one of the most stable version is written.
	first := map[int]reflect.Type{}
	for message, number := range class {
		if other, there := first[number]; !there || isBefore(message, other) {
			first[number] = message
		}
	}
	known.written = map[reflect.Type]reflect.Type{}
	for message, number := range class {
		known.written[message] = first[number]
	}
}

func isBefore(a, b reflect.Type) bool {
	unstable := func(message reflect.Type) bool {
		version := path.Base(message.PkgPath())
		return strings.Contains(version, "alpha") || strings.Contains(version, "beta")
	}
	if unstable(a) != unstable(b) {
		return unstable(b)
	}
	return name(a) < name(b)
}
