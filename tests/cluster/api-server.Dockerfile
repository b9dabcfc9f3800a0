# Built by build.sh, in the folder of a Kubernetes' programs.
FROM scratch
COPY kube-apiserver /usr/local/bin/kube-apiserver
