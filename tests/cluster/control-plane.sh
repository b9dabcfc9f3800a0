# etcd, the API server, the controller manager and the scheduler.
# shellcheck shell=bash

# Ports of our own: a distribution's etcd, or another cluster, may have the usual ones.
ETCD=http://127.0.0.1:12379
ETCD_PEER=http://127.0.0.1:12380
API_PORT=16443
PKI=$STATE/pki
# shellcheck disable=SC2034 # for status
CONTROL_PLANE=(etcd kube-apiserver kube-controller-manager kube-scheduler)

k() { kubectl --kubeconfig "$(kubeconfig admin)" --cache-dir "$STATE/kubectl" "$@"; }

kubeconfig() { echo "$STATE/$1.kubeconfig"; }

# default_accounts: waits for what every pod mounts; the controller manager makes it.
default_accounts() {
  local namespace
  for namespace in default kube-system; do
    wait_for 60 kube-controller-manager k get -n "$namespace" serviceaccount/default configmap/kube-root-ca.crt
  done
}

api_ready() { : 2> /dev/null < "/dev/tcp/127.0.0.1/$API_PORT" && k get --raw /readyz; }

control_plane_up() {
  local flags
  credentials
  # Nothing here outlives a crash of the machine, so etcd needn't wait for the disk.
  start etcd etcd --data-dir "$STATE/etcd" --unsafe-no-fsync --logger zap \
    --listen-client-urls $ETCD --advertise-client-urls $ETCD \
    --listen-peer-urls $ETCD_PEER --initial-advertise-peer-urls $ETCD_PEER --initial-cluster "default=$ETCD_PEER"
  mapfile -t flags < <(api_server_flags $API_PORT "$STATE")
  start kube-apiserver "$PROGRAMS/kube-apiserver" "${flags[@]}"
  wait_for 120 kube-apiserver api_ready
  # A node that says nothing for 10 s is NotReady; the kubelets renew their leases every 2 s. Certificate requests
  # are signed, so a test can make users with certificates, too.
  start kube-controller-manager "$PROGRAMS/kube-controller-manager" --kubeconfig "$(kubeconfig controller-manager)" \
    --secure-port 0 --leader-elect=false --use-service-account-credentials --kube-api-qps 200 --kube-api-burst 400 \
    --root-ca-file "$PKI/ca.crt" --service-account-private-key-file "$PKI/accounts.key" \
    --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
    --node-monitor-period 1s --node-monitor-grace-period 10s
  start kube-scheduler "$PROGRAMS/kube-scheduler" --kubeconfig "$(kubeconfig scheduler)" \
    --secure-port 0 --leader-elect=false
  progress "control plane ready after $SECONDS s"
}

# api_server_flags PORT FOLDER: one a line. The folder has its audit policy, and gets its audit log.
api_server_flags() {
  local flags=(--etcd-servers=$ETCD
    --bind-address=127.0.0.1 --secure-port="$1" --advertise-address=127.0.0.1 --endpoint-reconciler-type=none
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt"
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=Hostname
    --kubelet-client-certificate="$PKI/apiserver.crt" --kubelet-client-key="$PKI/apiserver.key"
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$PKI/accounts.pub"
    --service-account-signing-key-file="$PKI/accounts.key" --service-cluster-ip-range=10.96.0.0/16
    --token-auth-file="$PKI/tokens.csv" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
    --allow-privileged --audit-policy-file="$2/audit-policy.yaml" --audit-log-path="$2/audit.log"
    --audit-log-maxsize=500 --audit-log-maxbackup=1)
  printf '%s\n' "${flags[@]}"
}

control_plane_down() {
  local name
  for name in kube-scheduler kube-controller-manager kube-apiserver etcd; do stop "$name"; done
}

# credentials: who is who. The files live as long as the cluster; an `up` that finds them keeps them.
credentials() {
  [[ ! -f $PKI/complete ]] || return 0
  rm -rf "$PKI" && mkdir -m 700 "$PKI"
  new_key ca && new_key accounts
  openssl pkey -in "$PKI/accounts.key" -pubout -out "$PKI/accounts.pub"
  sign ca /CN=knark-test-ca -key "$PKI/ca.key" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign
  certificate apiserver /O=system:masters/CN=kube-apiserver DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1
  client admin /O=system:masters/CN=admin
  client controller-manager /CN=system:kube-controller-manager
  client scheduler /CN=system:kube-scheduler
  # Token users. They may do nothing until a test binds a role to them.
  local user token
  for user in alice bob; do
    token=$(openssl rand -hex 16)
    echo "$token,$user,$user" >> "$PKI/tokens.csv"
    write_kubeconfig "$user" "{token: $token}"
  done
  printf '%s\n' 'apiVersion: audit.k8s.io/v1' 'kind: Policy' 'omitStages: [RequestReceived]' \
    'rules: [{level: RequestResponse}]' > "$STATE/audit-policy.yaml"
  touch "$PKI/complete"
}

# client NAME SUBJECT [ALTERNATIVES]: a kubeconfig for somebody with a certificate.
client() {
  certificate "$1" "$2" "${3:-DNS:$1}"
  write_kubeconfig "$1" "{client-certificate-data: $(base64 -w 0 "$PKI/$1.crt"), client-key-data: $(base64 -w 0 "$PKI/$1.key")}"
}

# write_kubeconfig NAME CREDENTIALS
write_kubeconfig() {
  (umask 077 && cat > "$(kubeconfig "$1")") << EOF
apiVersion: v1
kind: Config
clusters: [{name: knark-test, cluster: {server: "https://127.0.0.1:$API_PORT", certificate-authority-data: $(base64 -w 0 "$PKI/ca.crt")}}]
users: [{name: $1, user: $2}]
contexts: [{name: knark-test, context: {cluster: knark-test, user: $1}}]
current-context: knark-test
EOF
}

# certificate NAME SUBJECT ALTERNATIVES: a key and a certificate, for servers and clients alike.
certificate() {
  new_key "$1"
  sign "$1" "$2" -key "$PKI/$1.key" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -addext "subjectAltName=$3" \
    -addext extendedKeyUsage=serverAuth,clientAuth
}

# Elliptic keys take milliseconds where RSA's take seconds.
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$PKI/$1.key"; }

# sign NAME SUBJECT OPTION...: with a configuration of its own, because the system's adds extensions.
sign() {
  openssl req -x509 -new -days 365 -config <(printf '[req]\ndistinguished_name = dn\n[dn]\n') -subj "$2" -out "$PKI/$1.crt" "${@:3}"
}
