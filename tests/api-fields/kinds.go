package main

import (
	"reflect"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// A kind as a body's envelope names it; those that each group has are of the version "*".
type kind struct {
	version, name string
	of            reflect.Type
}

// What every API group and version knows.
const everywhere = "k8s.io/apimachinery/pkg/apis/meta/v1"

// All kinds that have a form in protobuf, by version and name.
func kindsOf(known *runtime.Scheme) []kind {
	found := map[kind]bool{}
	for of, goType := range known.AllKnownTypes() {
		if of.Version == runtime.APIVersionInternal || !isMessage(goType) {
			continue
		}
		version := of.GroupVersion().String()
		if goType.PkgPath() == everywhere && !strings.HasPrefix(goType.Name(), "PartialObjectMetadata") && goType.Name() != "List" {
			version = "*"
		}
		found[kind{version, of.Kind, goType}] = true
	}
	var kinds []kind
	for one := range found {
		kinds = append(kinds, one)
	}
	sort.Slice(kinds, func(a, b int) bool {
		if kinds[a].version != kinds[b].version {
			return kinds[a].version < kinds[b].version
		}
		return kinds[a].name < kinds[b].name
	})
	return kinds
}

func isMessage(of reflect.Type) bool {
	_, is := reflect.PointerTo(of).MethodByName("MarshalToSizedBuffer")
	return is
}
