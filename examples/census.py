import upswell as modal

app = modal.App("census")


@app.function()
def evaluate_model(x):
    return x**2


@app.local_entrypoint()
def main():
    for result in evaluate_model.map(range(100)):
        print(result)
