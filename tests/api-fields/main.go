// api-fields fields    writes which fields the messages of Kubernetes' API have in protobuf, and what they are in JSON
// api-fields samples N writes N invented objects of each kind, a line each: API version, kind, protobuf in base64, and JSON
//
// What they say comes out of the API's own types, by reflection.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"strconv"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
)

func main() {
	log.SetFlags(0)
	known := scheme.Scheme
	for _, add := range []func(*runtime.Scheme) error{
		apiextensionsv1.AddToScheme, apiextensionsv1beta1.AddToScheme,
		apiregistrationv1.AddToScheme, apiregistrationv1beta1.AddToScheme,
		metav1.AddMetaToScheme, metav1beta1.AddMetaToScheme,
	} {
		if err := add(known); err != nil {
			log.Fatalf("registering the API's types: %v", err)
		}
	}
	out := bufio.NewWriter(os.Stdout)
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "fields":
		err = writeFields(out, kindsOf(known))
	case len(os.Args) == 3 && os.Args[1] == "samples":
		var count int
		if count, err = strconv.Atoi(os.Args[2]); err == nil {
			err = writeSamples(out, known, kindsOf(known), count)
		}
	default:
		err = fmt.Errorf("usage: api-fields fields | samples N")
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		log.Fatal(err)
	}
}
