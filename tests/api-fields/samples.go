package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// How deep invented objects are at most.
const deepest = 12

func writeSamples(out io.Writer, known *runtime.Scheme, kinds []kind, count int) error {
	codec := protobuf.NewSerializer(known, known)
	for number, kind := range kinds {
		// The same samples each time.
		random := rand.New(rand.NewPCG(uint64(number), 36))
		for sample := range count {
			given := reflect.New(kind.of)
			// The first is empty, and the second full.
			chance := []float64{0, 1, 0.7, 0.3}[min(sample, 3)]
			filler := filler{random, chance}
			filler.fill(given.Elem(), 0, 1)
			version := kind.version
			if version == "*" {
				version = "v1"
			}
			if err := writeSample(out, codec, version, kind, given.Interface().(runtime.Object)); err != nil {
				return fmt.Errorf("%s %s: %w", version, kind.name, err)
			}
		}
	}
	return nil
}

func writeSample(out io.Writer, codec *protobuf.Serializer, version string, kind kind, given runtime.Object) error {
	given.GetObjectKind().SetGroupVersionKind(schema.FromAPIVersionAndKind(version, kind.name))
	var encoded bytes.Buffer
	if err := codec.Encode(given, &encoded); err != nil {
		return err
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(encoded.Bytes()[4:]); err != nil {
		return err
	}
	// Events of a watch come without an envelope.
	if envelope.Kind == "" {
		return nil
	}
	// What JSON shows is what protobuf kept.
	kept := reflect.New(kind.of).Interface().(runtime.Object)
	if err := kept.(interface{ Unmarshal([]byte) error }).Unmarshal(envelope.Raw); err != nil {
		return err
	}
	kept.GetObjectKind().SetGroupVersionKind(given.GetObjectKind().GroupVersionKind())
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s %s %s %s\n", version, kind.name, base64.StdEncoding.EncodeToString(encoded.Bytes()), text)
	return err
}

// Fills what it is given at random, a field by this chance.
type filler struct {
	random *rand.Rand
	chance float64
}

func (filler *filler) fill(value reflect.Value, depth int, chance float64) {
	random := filler.random
	if depth > deepest || random.Float64() >= chance && depth > 0 {
		return
	}
	below := func(value reflect.Value) { filler.fill(value, depth+1, 1) }
	raw := func() []byte {
		return []byte(fmt.Sprintf(`{"a":[%d,"b",{"c":null}],"kind":"x"}`, random.IntN(100)))
	}
	switch shown := value.Addr().Interface().(type) {
	case *metav1.TypeMeta:
		return
	case *metav1.Time:
		shown.Time = time.Unix(random.Int64N(1<<33)-1<<31, random.Int64N(1e9))
		return
	case *metav1.MicroTime:
		shown.Time = time.Unix(random.Int64N(1<<33)-1<<31, random.Int64N(1e9))
		return
	case *metav1.Duration:
		// Of every length.
		shown.Duration = time.Duration(random.Int64()>>random.IntN(63)) * time.Duration(1-2*random.IntN(2))
		return
	case *resource.Quantity:
		*shown = resource.MustParse([]string{"0", "100m", "1500m", "2Gi", "1e3", "0.5", "12345678901234567890", "-3Mi"}[random.IntN(8)])
		return
	case *intstr.IntOrString:
		*shown = []intstr.IntOrString{intstr.FromInt32(random.Int32()), intstr.FromString("25%"), intstr.FromInt32(-1)}[random.IntN(3)]
		return
	case *runtime.RawExtension:
		shown.Raw = raw()
		return
	case *metav1.FieldsV1:
		shown.SetRawBytes(raw())
		return
	}
	if kind := special[value.Type()]; kind == "raw" {
		value.FieldByName("Raw").SetBytes(raw())
		return
	}
	switch value.Kind() {
	case reflect.String:
		value.SetString([]string{"a", "text", "with \"quotes\" & <brackets>", "ünïcode ☸", "two\nlines", ""}[random.IntN(6)])
	case reflect.Bool:
		value.SetBool(random.IntN(3) > 0)
	case reflect.Int32, reflect.Int64:
		number := []int64{0, 1, 80, -1, random.Int64N(1 << 31), random.Int64()}[random.IntN(6)]
		if value.OverflowInt(number) {
			number >>= 33
		}
		value.SetInt(number)
	case reflect.Float64:
		value.SetFloat([]float64{0, 1, -2.5, 1e21, 1e-9, 3.25}[random.IntN(6)])
	case reflect.Pointer:
		// Also what is there, but empty.
		value.Set(reflect.New(value.Type().Elem()))
		if random.IntN(8) > 0 {
			below(value.Elem())
		}
	case reflect.Slice:
		length := random.IntN(3)
		if depth > deepest/2 {
			length = random.IntN(2)
		}
		if value.Type().Elem().Kind() == reflect.Uint8 {
			length *= 5
		}
		value.Set(reflect.MakeSlice(value.Type(), length, length))
		for at := range length {
			if value.Type().Elem().Kind() == reflect.Uint8 {
				value.Index(at).SetUint(random.Uint64N(256))
			} else {
				below(value.Index(at))
			}
		}
	case reflect.Map:
		value.Set(reflect.MakeMap(value.Type()))
		for range random.IntN(3) {
			held := reflect.New(value.Type().Elem()).Elem()
			below(held)
			name := reflect.New(value.Type().Key()).Elem()
			name.SetString(fmt.Sprintf("k%d.example/name", random.IntN(9)))
			value.SetMapIndex(name, held)
		}
	case reflect.Struct:
		for at := range value.NumField() {
			if value.Field(at).CanSet() {
				filler.fill(value.Field(at), depth+1, filler.chance)
			}
		}
	}
}
