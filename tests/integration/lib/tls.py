"""Certificates for tests: an authority, a server's and a client's, named as QEMU wants."""

import os
import subprocess

from .host import Failure


def _openssl(folder, *args):
    done = subprocess.run(['openssl', *args], cwd=folder, capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise Failure(f'openssl {" ".join(args)}: {done.stderr}')


def make_keys(folder):
    """Both ends' files in one folder; the server is 127.0.0.1."""
    os.makedirs(folder)
    key = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes')
    _openssl(folder, 'req', '-x509', *key, '-days', '2', '-subj',
             '/CN=test', '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem', '-addext',
             'keyUsage=critical,keyCertSign')
    for name, usage in (('server', 'serverAuth'), ('client', 'clientAuth')):
        _openssl(folder, 'req', *key, '-subj', f'/CN={name}',
                 '-keyout', f'{name}-key.pem', '-out', f'{name}.csr')
        with open(os.path.join(folder, 'extensions'), 'w') as out:
            out.write(f'subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n')
        _openssl(folder, 'x509', '-req', '-in', f'{name}.csr', '-CA', 'ca-cert.pem',
                 '-CAkey', 'ca-key.pem', '-CAcreateserial', '-days', '2', '-out',
                 f'{name}-cert.pem', '-extfile', 'extensions')
    return folder
