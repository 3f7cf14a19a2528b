# Makes the certificates of the tests anew, in this folder: bash tests/tls/make_certificates.sh
# They are valid from 2020 to 2120, and protect nothing: their keys are here for everybody to read.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

# sign NAME AUTHORITY EXTENSIONS [-selfsign]
sign() {
    mkdir -p "$2.ca"
    touch "$2.ca/index.txt"
    openssl rand -hex 16 > "$2.ca/serial"
    printf '[ca]\ndefault_ca = d\n[d]\ndatabase = %s.ca/index.txt\nserial = %s.ca/serial\nnew_certs_dir = %s.ca
default_md = sha256\npolicy = p\nunique_subject = no\n[p]\ncommonName = supplied\n[e]\n%b\n' "$2" "$2" "$2" "$3" > config
    openssl req -new -key "$1.key" -subj "/CN=kio test $1" -out "$1.csr"
    issuer="-cert $2.pem"
    test -n "${4-}" && issuer=$4
    openssl ca -batch -config config -extensions e $issuer -keyfile "$2.key" -in "$1.csr" -out "$1.pem" -notext \
        -startdate 20200101000000Z -enddate 21200101000000Z 2> log || { cat log; exit 1; }
}

for authority in authority stranger; do
    new_key $authority
    sign $authority $authority \
        'basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\nsubjectKeyIdentifier = hash' -selfsign
    cp $authority.pem "$here"
done
ends='basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nauthorityKeyIdentifier = keyid\n'
names='subjectAltName = IP:127.0.0.1,IP:::1,DNS:localhost\nextendedKeyUsage = serverAuth'
for end in server renewed; do
    new_key $end
    sign $end authority "$ends$names"
done
new_key client
sign client authority "${ends}extendedKeyUsage = clientAuth"
new_key intruder
sign intruder stranger "${ends}extendedKeyUsage = clientAuth"
for end in server renewed client intruder; do
    cat $end.pem $end.key > "$here/$end.pem"
done
openssl ec -in server.key -aes256 -passout pass:secret -out "$here/encrypted.key" 2> log
